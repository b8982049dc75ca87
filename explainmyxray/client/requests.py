"""API requests as data, without any input or output: both clients send them."""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import httpx

from explainmyxray.client.errors import InvalidRequest, ProblemDetails, api_error, unexpected_answer
from explainmyxray.client.resources import Batch, Delivery, Job, M, Upload, read_json

T = TypeVar("T")

NDJSON: Final = "application/x-ndjson"

LONGEST_POLL = 30.0
"""Seconds that the server is asked to hold a poll; many proxies cut connections after a minute."""

POLL_INTERVAL = 1.0
"""Seconds between polls that the server answers at once."""


@dataclass(frozen=True)
class ApiRequest(Generic[T]):
    """A request to the server and the meaning of its answer.

    Attributes:
        method: HTTP method.
        path: Path below the server's address, or a whole URL.
        parse: Turns a successful answer into a result. Raises ValueError for content that isn't the server's.
        params: Query parameters.
        headers: Headers of this request alone.
        json: Body as JSON, or None.
        form: Fields of a form.
        files: Files of a form, as (field, bytes).
        content: Body as bytes, or None.
        success_statuses: HTTP statuses besides 2xx that are a success.
        done_if_repeated: HTTP statuses that are a success from the second attempt on: they show that an earlier
            attempt was carried out though its answer was lost.
        repeatable: Whether the request may be sent again when it may have been carried out already.
        authenticated: Whether the API key is sent. A URL that carries its own permission never gets it.
        held_for: Seconds that the server may hold the answer back, beyond the client's own timeout.
    """

    method: str
    path: str
    parse: Callable[[httpx.Response], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[tuple[str, bytes]] = ()
    content: bytes | None = None
    success_statuses: tuple[int, ...] = ()
    done_if_repeated: tuple[int, ...] = ()
    repeatable: bool = True
    authenticated: bool = True
    held_for: float = 0.0

    def result(self, answer: httpx.Response | httpx.RequestError, attempts: int) -> T:
        """Return what an answer means.

        Args:
            answer: The server's answer, or the reason why it is missing.
            attempts: Number of attempts so far, at least 1.

        Raises:
            ApiError: The answer isn't a success, or doesn't come from an ExplainMyXray server.
        """
        if isinstance(answer, httpx.RequestError):
            raise api_error(answer) from answer
        statuses = self.success_statuses + (self.done_if_repeated if attempts > 1 else ())
        if not answer.is_success and answer.status_code not in statuses:
            raise api_error(answer)
        try:
            return self.parse(answer)
        except ValueError:
            raise unexpected_answer(answer) from None

    def may_be_repeated(self, answer: httpx.Response | httpx.RequestError) -> bool:
        """Tell whether sending it again can't carry it out twice to anyone's harm."""
        not_carried_out = (
            isinstance(answer, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            if isinstance(answer, httpx.RequestError)
            else answer.status_code == 429
        )
        return self.repeatable or not_carried_out


def as_model(model: type[M]) -> Callable[[httpx.Response], M]:
    """Make a parser of JSON answers."""
    return lambda answer: read_json(model, answer.content)


def as_bytes(answer: httpx.Response) -> bytes:
    """Return the answer's body."""
    return answer.content


def as_object(answer: httpx.Response) -> dict[str, Any]:
    """Return the answer's JSON object. Raises ValueError for anything else."""
    found = json.loads(answer.content)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def as_nothing(answer: httpx.Response) -> None:
    """Ignore the answer's body."""


def id_of(resource: Job | Batch | Delivery | str) -> str:
    """Return a resource's id, quoted for a path."""
    return quote(resource if isinstance(resource, str) else resource.id, safe="")


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out options that are None."""
    return {name: value for name, value in options.items() if value is not None}


def as_texts(options: Mapping[str, Any]) -> dict[str, str]:
    """Encode options for a form or a query, in which every value is text."""
    return {name: _as_text(value) for name, value in given(options).items()}


def idempotency(key: str | None) -> dict[str, str]:
    """Return the header that makes repeated submissions one, with a new key unless the caller has its own.

    Raises:
        InvalidRequest: The key is longer than 255 characters, or has others than printable ASCII.
    """
    if key and not (len(key) <= 255 and key.isascii() and key.isprintable()):
        detail = "The idempotency key is invalid. Use 1 to 255 printable ASCII characters."
        raise InvalidRequest(ProblemDetails("invalid-request", detail))
    return {"Idempotency-Key": key or str(uuid.uuid4())}


def manifest_of(uploads: Iterable[tuple[Upload, str | None]]) -> bytes:
    """Write the NDJSON manifest of uploaded images, each with the caller's name for it."""
    rows = ({"image": f"upload:{upload.id}", "name": name} for upload, name in uploads)
    return "".join(json.dumps(given(row)) + "\n" for row in rows).encode()


def _as_text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value) if isinstance(value, dict | bool) else str(value)
