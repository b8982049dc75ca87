"""Errors of the clients: one class for each thing that a caller can do something about."""

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from emx_shared.imaging import BadImage
from emx_shared.root_error import ExplainMyXrayError
from explainmyxray.client.resources import Job

_PREFIX = "urn:explainmyxray:problem:"
_NOT_ABOUT_THE_IMAGE = ("too-many-files", "unknown-content-type")


@dataclass(frozen=True)
class ProblemDetails:
    """A problem document (RFC 9457), or the lack of an answer in the same shape.

    Attributes:
        type: Stable name for programs, without the URN's prefix, such as ``bad-image``.
        detail: A sentence for people.
        status: HTTP status; None if there was no answer.
        errors: Fields of the request that are invalid, each with ``where`` and ``what``.
        retry_after: Seconds after which the server asks to try again; None if it doesn't say.
    """

    type: str
    detail: str
    status: int | None = None
    errors: tuple[dict[str, Any], ...] = ()
    retry_after: float | None = None


class ApiError(ExplainMyXrayError):
    """A request that wasn't carried out. Raised itself only for answers that have no subclass of their own.

    Attributes:
        problem: Why, as the server says it.
    """

    def __init__(self, problem: ProblemDetails) -> None:
        super().__init__(problem.detail)
        self.problem = problem

    @property
    def type(self) -> str:
        """Stable name for programs, such as ``bad-image``."""
        return self.problem.type

    @property
    def detail(self) -> str:
        """A sentence for people."""
        return self.problem.detail

    @property
    def status(self) -> int | None:
        """HTTP status; None if there was no answer."""
        return self.problem.status

    @property
    def errors(self) -> tuple[dict[str, Any], ...]:
        """Fields of the request that are invalid, each with ``where`` and ``what``."""
        return self.problem.errors

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the server asks to try again; None if it doesn't say."""
        return self.problem.retry_after


class Unauthenticated(ApiError):
    """The API key is missing, invalid or revoked. Set EMX_API_KEY."""


class Forbidden(ApiError):
    """The API key lacks the scope that this request needs."""


class NotFound(ApiError):
    """The job, batch, delivery or image doesn't exist, or belongs to another tenant."""


class RejectedImage(ApiError, BadImage):
    """The server refuses the image: it is too large, damaged, or of a format that isn't accepted."""


class InvalidRequest(ApiError):
    """An option is invalid; ``errors`` names each invalid field."""


class Conflict(ApiError):
    """The request doesn't fit the current state.

    The job has ended already, has no report, or the idempotency key was used for another request.
    """


class TooManyRequests(ApiError):
    """A rate limit or a quota is exceeded. Wait ``retry_after`` seconds."""


class Unavailable(ApiError):
    """The server, or a service that it needs, is unavailable. A later attempt may succeed."""


class InvalidConnection(ExplainMyXrayError, ValueError):
    """The server's address or the API key is malformed; no request was sent."""


class NoReport(ExplainMyXrayError):
    """The job ended without a report: it failed, expired, or was cancelled.

    Attributes:
        job: The job as it ended.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job.failure.message if job.failure else f"The job has no report: it is {job.state}.")
        self.job = job


class StillRunning(ExplainMyXrayError, TimeoutError):
    """The job or batch hasn't ended within the caller's timeout. It continues on the server."""


_CLASSES: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    406: InvalidRequest,
    409: Conflict,
    413: RejectedImage,
    415: RejectedImage,
    422: InvalidRequest,
    429: TooManyRequests,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
    507: Unavailable,
}


def api_error(answer: httpx.Response | httpx.RequestError) -> ApiError:
    """Make the error of an unsuccessful answer, or of a missing answer."""
    if isinstance(answer, httpx.RequestError):
        reason = str(answer) or type(answer).__name__
        detail = f"The server can't be reached, or it closed the connection: {reason}."
        return Unavailable(ProblemDetails("no-answer", detail))
    problem = _problem_of(answer)
    kind = _CLASSES.get(answer.status_code, ApiError)
    if kind is RejectedImage and problem.type in _NOT_ABOUT_THE_IMAGE:
        kind = InvalidRequest
    if kind is InvalidRequest and problem.type.endswith("image"):
        kind = RejectedImage
    return kind(problem)


def unexpected_answer(answer: httpx.Response) -> ApiError:
    """Make the error of a success whose content isn't that of an ExplainMyXray server."""
    detail = f"{answer.request.url} doesn't answer as ExplainMyXray does. Is the address right?"
    return ApiError(ProblemDetails("unexpected-answer", detail, answer.status_code))


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore")

    type: str = "about:blank"
    detail: str | None = None
    errors: tuple[dict[str, Any], ...] | None = None


def _problem_of(answer: httpx.Response) -> ProblemDetails:
    try:
        document = _Document.model_validate_json(answer.content)
    except ValidationError:  # such as a proxy's own page
        document = _Document()
    return ProblemDetails(
        type=document.type.removeprefix(_PREFIX),
        detail=document.detail or f"The server answers {answer.status_code} {_phrase(answer.status_code)}.",
        status=answer.status_code,
        errors=document.errors or (),
        retry_after=_retry_after(answer.headers.get("retry-after", "")),
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _retry_after(value: str) -> float | None:
    """Parse ``Retry-After``, which is a number of seconds or a date (RFC 9110, 10.2.3)."""
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except ValueError:
        return None
