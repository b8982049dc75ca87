"""A batch's manifest as it arrives: CSV or NDJSON, of any length, looked through row by row."""

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from emx_gateway.api.submission_bodies import Indication, Metadata, Name
from emx_gateway.http.problems import Problem, invalid_fields
from emx_shared.ledger.records import Row

CSV, NDJSON = "text/csv", "application/x-ndjson"
MOST_ROWS = 100_000
LONGEST_LINE = 64 * 2**10
"""Bytes of one row."""

_IN_MEMORY = 2**20
_TOLD = 20
"""Rows that don't fit and are told of; looking goes no further."""

_PART = "[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}"
_IMAGE = re.compile(rf"(upload:[0-9a-f-]{{36}}|job:[0-9a-f-]{{36}}|import:{_PART}(/{_PART})*)")
_LONGEST_IMAGE = 500
"""Characters; a key of S3 has 1,024 bytes at most."""


class ManifestRow(BaseModel):
    """One study of a manifest."""

    model_config = ConfigDict(extra="forbid")

    image: str = Field(
        max_length=_LONGEST_IMAGE,
        description="upload:ID, import:PATH or job:ID",
        examples=["import:2019/0001.dcm"],
    )
    name: Name | None = Field(default=None, description="Your own for the row, given back with its result")
    metadata: Metadata = Field(default_factory=dict)
    study: Name | None = None
    patient: Name | None = None
    indication: Indication | None = None

    @field_validator("image")
    @classmethod
    def _known(cls, image: str) -> str:
        if not _IMAGE.fullmatch(image):
            raise ValueError(
                "must be upload:ID, job:ID, or import:PATH; parts of a path have up to 200 of A–Z, a–z, 0–9, ., _ "
                "and -, and don't begin with a dot"
            )
        return image


class Manifest:
    """A manifest that was received whole. Close it after use."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._file: IO[bytes] = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed by close()
        self._digest = hashlib.sha256(kind.encode())

    async def receive(self, request: Request) -> None:
        """Takes the body as it comes; beyond a megabyte it lies on disk."""
        async for chunk in request.stream():
            self._file.write(chunk)
            self._digest.update(chunk)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def check(self) -> int:
        """Look through all rows, and count them. Raises Problem, which names the first rows that don't fit."""
        errors: list[dict[str, Any]] = []
        count = 0
        for number, row in self._raw():
            count += 1
            if count > MOST_ROWS:
                raise Problem(413, "too-many-rows", f"A batch has at most {MOST_ROWS} rows: send several.")
            try:
                ManifestRow.model_validate(row)
            except ValidationError as error:
                errors += [{"where": f"row {number}.{_path(e)}", "what": e["msg"]} for e in error.errors()]
                if len(errors) >= _TOLD:
                    break
        if errors:
            raise invalid_fields(errors[:_TOLD])
        if not count:
            raise invalid_fields([{"where": "body", "what": "The manifest has no rows"}])
        return count

    def rows(self) -> Iterator[Row]:
        """Of a manifest that was checked."""
        for _, row in self._raw():
            yield Row(**ManifestRow.model_validate(row).model_dump())

    def close(self) -> None:
        self._file.close()

    def _raw(self) -> Iterator[tuple[int, Any]]:
        """Rows, numbered from 1, before they are looked at."""
        self._file.seek(0)
        return self._of_csv() if self._kind == CSV else self._of_ndjson()

    def _of_ndjson(self) -> Iterator[tuple[int, Any]]:
        for number, line in enumerate(self._lines(), start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError):
                    raise invalid_fields([{"where": f"row {number}", "what": "This line is not JSON"}]) from None

    def _of_csv(self) -> Iterator[tuple[int, Any]]:
        """The first line names the columns; those that aren't a row's own are metadata, and empty is absent."""
        reader = csv.DictReader(self._lines(), strict=True)
        try:
            for number, record in enumerate(reader, start=1):
                if None in record or None in record.values():
                    raise invalid_fields(
                        [{"where": f"row {number}", "what": "It hasn't as many fields as the header"}]
                    )
                given: dict[str, Any] = {k: v for k, v in record.items() if v and k in ManifestRow.model_fields}
                others = {k: v for k, v in record.items() if v and k not in ManifestRow.model_fields}
                yield number, {**given, "metadata": others}
        except csv.Error as error:
            raise invalid_fields(
                [{"where": f"line {reader.line_num}", "what": f"This is no CSV: {error}"}]
            ) from None

    def _lines(self) -> Iterator[str]:
        number = 0
        while line := self._file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise invalid_fields([{"where": f"line {number}", "what": f"It has over {LONGEST_LINE} bytes"}])
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise invalid_fields([{"where": f"line {number}", "what": "It is no text in UTF-8"}]) from None


def _path(error: Any) -> str:
    return ".".join(map(str, error["loc"]))
