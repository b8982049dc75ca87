"""Read a request's body. No endpoint declares one to FastAPI, which would read it before the caller is known."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData

from emx_gateway.http.problems import Problem, invalid_fields

LONGEST_JSON = 256 * 2**10
"""Bytes."""

_LONGEST_FIELD = 2**16
M = TypeVar("M", bound=BaseModel)


def content_type(request: Request) -> str:
    """Return the request's media type, in lower case and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_image(request: Request, most: int) -> bytes:
    """Read the whole body. Raises Problem 413 as soon as it has more than ``most`` bytes."""
    detail = f"The image has more bytes than the {most} that are accepted."
    return await _read(request, most, Problem(413, "image-too-large", detail, {"Connection": "close"}))


async def read_json(request: Request) -> Any:
    """Read a JSON body. Raises Problem 413 if it is too long, 400 if it is not JSON."""
    detail = f"The JSON has more bytes than the {LONGEST_JSON} that are accepted."
    too_large = Problem(413, "body-too-large", detail, {"Connection": "close"})
    return parse_json(await _read(request, LONGEST_JSON, too_large))


async def _read(request: Request, most: int, too_large: Problem) -> bytes:
    parts: list[bytes] = []
    received = 0
    async for part in request.stream():
        received += len(part)
        if received > most:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def parse_json(data: bytes) -> Any:
    """Parse JSON. Raises Problem 400."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Problem(400, "not-json", "This is not JSON.") from None


def validate(model: type[M], given: Any) -> M:
    """Validate a value against a model. Raises Problem 422 that names each invalid field."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        found = [{"where": ".".join(map(str, ("body", *e["loc"]))), "what": e["msg"]} for e in error.errors()]
        raise invalid_fields(found) from None


@contextlib.asynccontextmanager
async def read_form(request: Request, files: int, fields: int) -> AsyncIterator[FormData]:
    """Read a multipart form with at most so many files and fields; files beyond a megabyte are kept on disk.

    Raises Problem 400 for an unknown charset, HTTPException 400 for other faults.
    """
    form = request.form(max_files=files, max_fields=fields, max_part_size=_LONGEST_FIELD)
    try:
        received = await form
    except (LookupError, UnicodeError):
        raise Problem(
            400, "bad-form", "The form names an unknown charset, or isn't written in the one that it names."
        ) from None
    try:
        yield received
    finally:
        await received.close()
