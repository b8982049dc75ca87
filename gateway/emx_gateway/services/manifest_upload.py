"""A batch's manifest as it is uploaded: CSV or NDJSON, of any length, read row by row."""

import csv
import hashlib
import json
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from fastapi import Request
from pydantic import ValidationError

from emx_gateway.http.problems import Problem, invalid_fields
from emx_gateway.schemas import ManifestRow
from emx_shared.ledger.records import Row

CSV, NDJSON = "text/csv", "application/x-ndjson"
MOST_ROWS = 100_000
LONGEST_LINE = 64 * 2**10
"""Bytes of one row."""
MOST_COLUMNS = 100
MOST_LINES = 3 * MOST_ROWS
"""Empty ones, and those within quoted fields, included."""

_IN_MEMORY = 2**20
_MOST_ERRORS = 20
"""Invalid rows that are reported; checking stops there."""


class ManifestUpload:
    """A manifest as it was received: on disk beyond a megabyte. Close it after use."""

    def __init__(self, kind: str) -> None:
        """Prepare to receive a manifest of this media type."""
        self._kind = kind
        self._file: IO[bytes] = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed by close()
        self._digest = hashlib.sha256(kind.encode())

    async def receive(self, request: Request) -> None:
        """Receive the request's body."""
        async for chunk in request.stream():
            self._file.write(chunk)
            self._digest.update(chunk)

    @property
    def sha256(self) -> str:
        """Digest of media type and content, in hexadecimal."""
        return self._digest.hexdigest()

    def check(self) -> int:
        """Check all rows and return how many there are. Raises Problem that names the first invalid ones."""
        errors: list[dict[str, Any]] = []
        count = 0
        for number, row in self._raw():
            count += 1
            if count > MOST_ROWS:
                raise Problem(413, "too-many-rows", f"A batch has at most {MOST_ROWS} rows. Send several batches.")
            try:
                ManifestRow.model_validate(row)
            except ValidationError as error:
                errors += [{"where": f"row {number}.{_path(e)}", "what": e["msg"]} for e in error.errors()]
                if len(errors) >= _MOST_ERRORS:
                    break
        if errors:
            raise invalid_fields(errors[:_MOST_ERRORS])
        if not count:
            raise invalid_fields([{"where": "body", "what": "The manifest has no rows"}])
        return count

    def rows(self) -> Iterator[Row]:
        """Yield the rows of a manifest that was checked."""
        for _, row in self._raw():
            yield Row(**ManifestRow.model_validate(row).model_dump())

    def close(self) -> None:
        """Delete what was received."""
        self._file.close()

    def _raw(self) -> Iterator[tuple[int, Any]]:
        """Yield the rows as they are, numbered from 1."""
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
        """Read CSV: the first line names the columns; unknown ones are metadata, and empty fields are absent."""
        reader = csv.DictReader(self._lines(), strict=True)
        try:
            if len(reader.fieldnames or ()) > MOST_COLUMNS:
                raise invalid_fields([{"where": "line 1", "what": f"It has more than {MOST_COLUMNS} columns"}])
            for number, record in enumerate(reader, start=1):
                if None in record or None in record.values():
                    raise invalid_fields(
                        [{"where": f"row {number}", "what": "It doesn't have as many fields as the header"}]
                    )
                given: dict[str, Any] = {k: v for k, v in record.items() if v and k in ManifestRow.model_fields}
                others = {k: v for k, v in record.items() if v and k not in ManifestRow.model_fields}
                yield number, {**given, "metadata": others}
        except csv.Error as error:
            raise invalid_fields([{"where": f"line {reader.line_num}", "what": f"Invalid CSV: {error}"}]) from None

    def _lines(self) -> Iterator[str]:
        number = 0
        while line := self._file.readline(LONGEST_LINE + 1):
            number += 1
            if number > MOST_LINES:
                detail = f"A manifest has at most {MOST_LINES} lines, empty ones included."
                raise Problem(413, "too-many-rows", detail)
            if len(line) > LONGEST_LINE:
                raise invalid_fields(
                    [{"where": f"line {number}", "what": f"It has more than {LONGEST_LINE} bytes"}]
                )
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise invalid_fields([{"where": f"line {number}", "what": "It is not UTF-8 text"}]) from None


def _path(error: Any) -> str:
    return ".".join(map(str, error["loc"]))
