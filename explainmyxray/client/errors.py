"""Why a server didn't do what was asked: one class for each thing that a caller can do something about."""

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from explainmyxray.client.resources import Job

_PREFIX = "urn:explainmyxray:problem:"
_NOT_OF_THE_IMAGE = ("too-many-files", "unknown-content-type")


@dataclass(frozen=True)
class Problem:
    """A problem document (RFC 9457).

    Attributes:
        type: its name without the URN's prefix, such as ``bad-image``.
        status: of HTTP; None where there was no answer.
        errors: what doesn't fit in a request: ``where`` and ``what`` each.
        retry_after: seconds after which to try again, where the server says so.
    """

    type: str
    detail: str
    status: int | None = None
    errors: tuple[dict[str, Any], ...] = ()
    retry_after: float | None = None


class ApiError(Exception):
    """A request that wasn't done; also any answer for which there is no class below."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem

    @property
    def type(self) -> str:
        return self.problem.type

    @property
    def detail(self) -> str:
        return self.problem.detail

    @property
    def status(self) -> int | None:
        return self.problem.status

    @property
    def errors(self) -> tuple[dict[str, Any], ...]:
        return self.problem.errors

    @property
    def retry_after(self) -> float | None:
        return self.problem.retry_after


class Unauthenticated(ApiError):
    """An API key is needed, or this one is none: set EMX_API_KEY."""


class Forbidden(ApiError):
    """The API key lacks the scope for this."""


class NotFound(ApiError):
    """There is no such job, batch or image, or it is another tenant's."""


class BadImage(ApiError):
    """The image is too large, of no kind that is accepted, or damaged."""


class InvalidRequest(ApiError):
    """An option doesn't fit; ``errors`` says which."""


class Conflict(ApiError):
    """Not in this state: the job has ended already, has no report, or the idempotency key was used otherwise."""


class TooManyRequests(ApiError):
    """Slow down: ``retry_after`` seconds."""


class Unavailable(ApiError):
    """The server, or something that it stands on, is away. Trying again later may help."""


class NoReport(Exception):
    """The job ended without a report: it failed, expired, or was cancelled."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.failure.message if job.failure else f"The job has no report: it is {job.state}.")
        self.job = job


class StillRunning(TimeoutError):
    """The job, or the batch, hasn't ended in the time given. It goes on."""


_CLASSES: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    406: InvalidRequest,
    409: Conflict,
    413: BadImage,
    415: BadImage,
    422: InvalidRequest,
    429: TooManyRequests,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
    507: Unavailable,
}


def error_of(answer: httpx.Response | httpx.TransportError) -> ApiError:
    """The error that an answer, or the lack of one, stands for."""
    if isinstance(answer, httpx.TransportError):
        what = str(answer) or type(answer).__name__
        return Unavailable(Problem("no-answer", f"The server can't be reached, or breaks off: {what}."))
    problem = _problem_of(answer)
    kind = _CLASSES.get(answer.status_code, ApiError)
    if kind is BadImage and problem.type in _NOT_OF_THE_IMAGE:
        kind = InvalidRequest
    if kind is InvalidRequest and problem.type.endswith("image"):
        kind = BadImage
    return kind(problem)


def unexpected(answer: httpx.Response) -> ApiError:
    """A success that can't be understood."""
    detail = f"{answer.request.url} doesn't answer as ExplainMyXray does. Is the address right?"
    return ApiError(Problem("unexpected-answer", detail, answer.status_code))


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore")

    type: str = "about:blank"
    detail: str | None = None
    errors: tuple[dict[str, Any], ...] | None = None


def _problem_of(answer: httpx.Response) -> Problem:
    try:
        document = _Document.model_validate_json(answer.content)
    except ValidationError:  # a proxy's page, say
        document = _Document()
    return Problem(
        type=document.type.removeprefix(_PREFIX),
        detail=document.detail or f"The server answers {answer.status_code} {_phrase(answer.status_code)}.",
        status=answer.status_code,
        errors=document.errors or (),
        retry_after=_seconds(answer.headers.get("retry-after", "")),
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _seconds(retry_after: str) -> float | None:
    """Of seconds or of a date (RFC 9110, 10.2.3)."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        return max(parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except ValueError:
        return None
