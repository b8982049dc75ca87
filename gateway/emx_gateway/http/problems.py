"""Errors as RFC 9457 problem documents, all made in this one place."""

import logging
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from emx_gateway.http.entity_tags import NotModified
from emx_shared.audit_log import AuditUnavailable
from emx_shared.imaging import BadImage, ImageTooLarge, NotAnImage
from emx_shared.ledger import IdempotencyConflict, SubmissionAbandoned, SubmissionErased
from emx_shared.ledger.records import UnreadableRecord
from emx_shared.prometheus_metrics import REFUSED
from emx_shared.store import NoSuchObject, StoreError, StoreFull
from emx_shared.webhooks import ForbiddenTarget, TooManySecrets

log = logging.getLogger("emx.gateway")

MEDIA_TYPE = "application/problem+json"


class ProblemDocument(BaseModel):
    """A problem document (RFC 9457): ``type`` is a stable name for programs, ``detail`` a sentence for people."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = None


class Problem(Exception):
    """An error that is answered with a problem document, wherever in the gateway it is raised."""

    def __init__(
        self,
        status: int,
        type: str,
        detail: str,
        headers: dict[str, str] | None = None,
        errors: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.type, self.detail = status, type, detail
        self.headers, self.errors = headers or {}, errors


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of an endpoint that may answer with these problems, for OpenAPI."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in statuses
    }


def document(problem: Problem) -> dict[str, Any]:
    """Return the problem document of a problem."""
    return ProblemDocument(
        type=f"urn:explainmyxray:problem:{problem.type}",
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        detail=problem.detail,
        errors=problem.errors,
    ).model_dump(exclude_none=True)


def answer(problem: Problem) -> JSONResponse:
    """Return the response that answers with a problem."""
    return JSONResponse(document(problem), problem.status, problem.headers, media_type=MEDIA_TYPE)


def invalid_fields(errors: list[dict[str, Any]]) -> Problem:
    """Return Problem 422; each error says ``where`` and ``what``."""
    where = ", ".join(error["where"] for error in errors)
    return Problem(422, "invalid-request", f"The request is invalid: {where}.", errors=errors)


def _allowed(request: Request) -> str:
    """Return all methods of a path (RFC 9110, 10.2.1): Starlette knows only those of the first route that fits."""
    methods: set[str] = set()
    for route in request.app.state.endpoints:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def _of_image(error: BadImage) -> Problem:
    if isinstance(error, ImageTooLarge):
        return Problem(413, "image-too-large", str(error))
    if isinstance(error, NotAnImage):
        return Problem(415, "not-an-image", str(error))
    return Problem(422, "bad-image", str(error))


def install(app: FastAPI, note_refusal: Callable[[Request, int, str], None]) -> None:
    """Turn every exception that a caller can do something about into its problem document.

    Args:
        app: the application.
        note_refusal: writes status and type of a problem to the audit log.
    """

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> JSONResponse:
        if request.method == "POST":
            REFUSED.labels(error.status).inc()
        with suppress(AuditUnavailable):  # it is refused all the same
            note_refusal(request, error.status, error.type)
        return answer(error)

    @app.exception_handler(NotModified)
    async def not_modified(request: Request, error: NotModified) -> Response:
        return Response(status_code=304, headers={"ETag": error.tag})

    @app.exception_handler(AuditUnavailable)
    async def no_audit(request: Request, error: AuditUnavailable) -> JSONResponse:
        detail = "The audit log can't be written, so nothing was done. Tell the operator."
        return answer(Problem(507, "audit-unavailable", detail, {"Retry-After": "60"}))

    @app.exception_handler(BadImage)
    async def bad_image(request: Request, error: BadImage) -> JSONResponse:
        return await problem(request, _of_image(error))

    @app.exception_handler(ForbiddenTarget)
    async def forbidden_target(request: Request, error: ForbiddenTarget) -> JSONResponse:
        return await problem(request, Problem(422, "forbidden-webhook-target", str(error)))

    @app.exception_handler(TooManySecrets)
    async def too_many_secrets(request: Request, error: TooManySecrets) -> JSONResponse:
        return await problem(request, Problem(429, "too-many-secrets", str(error), {"Retry-After": "3600"}))

    @app.exception_handler(IdempotencyConflict)
    async def conflict(request: Request, error: IdempotencyConflict) -> JSONResponse:
        detail = "This idempotency key was used before, for another request. Use a new key."
        return await problem(request, Problem(409, "idempotency-conflict", detail))

    @app.exception_handler(SubmissionErased)
    async def erased(request: Request, error: SubmissionErased) -> JSONResponse:
        detail = "What was submitted with this idempotency key was erased. To submit it anew, use another key."
        return await problem(request, Problem(409, "erased", detail))

    @app.exception_handler(SubmissionAbandoned)
    async def abandoned(request: Request, error: SubmissionAbandoned) -> JSONResponse:
        detail = "The submission took too long to be stored. Send it again."
        return await problem(request, Problem(503, "abandoned", detail, {"Retry-After": "1"}))

    @app.exception_handler(StoreError)
    async def store(request: Request, error: StoreError) -> JSONResponse:
        detail = "The object store is unavailable. Nothing was accepted. Try again later."
        return await problem(request, Problem(503, "store-unavailable", detail, {"Retry-After": "5"}))

    @app.exception_handler(UnreadableRecord)
    async def unreadable(request: Request, error: UnreadableRecord) -> JSONResponse:
        detail = (
            "The stored record is damaged, or was written by a newer version of this server. Nothing was changed. "
            "Update this server."
        )
        return await problem(request, Problem(503, "unreadable-record", detail))

    @app.exception_handler(NoSuchObject)
    async def gone(request: Request, error: NoSuchObject) -> JSONResponse:
        return await problem(request, Problem(404, "erased-meanwhile", "It was erased a moment ago."))

    @app.exception_handler(RedisError)
    async def redis_away(request: Request, error: RedisError) -> JSONResponse:
        detail = "The queue is unavailable. What was started continues by itself. Try again later."
        return await problem(request, Problem(503, "queue-unavailable", detail, {"Retry-After": "5"}))

    @app.exception_handler(StoreFull)
    async def full(request: Request, error: StoreFull) -> JSONResponse:
        detail = "The object store is full. Nothing was accepted. Tell the operator."
        return await problem(request, Problem(507, "store-full", detail, {"Retry-After": "60"}))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = [{"where": ".".join(map(str, e["loc"])), "what": e["msg"]} for e in error.errors()]
        return await problem(request, invalid_fields(found))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, Problem):  # raised while FastAPI was parsing the body
            return await problem(request, error.__cause__)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            detail = f"{request.method} is not supported here."
            return answer(Problem(405, "method-not-allowed", detail, {"Allow": _allowed(request)}))
        kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        return answer(Problem(error.status_code, kind, str(error.detail), dict(error.headers or {})))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        """Answer without details: the traceback goes to the log alone, after a line with the request's id."""
        id = request.state.request_id
        log.error("request %s failed", id)
        detail = f"Something went wrong in this server. Its log has more at request {id}."
        return answer(Problem(500, "internal-error", detail))
