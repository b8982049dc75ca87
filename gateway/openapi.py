"""What every operation of the OpenAPI document has: examples, headers, and the problems that occur anywhere."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from gateway import examples
from gateway.problems import MEDIA_TYPE, Problem, document, documented

Operation = dict[str, Any]
_REF = "#/components/schemas/"
_SUCCESS, _ACCEPTED, _CREATED = range(200, 300), "202", "201"

_RATE_LIMIT = {
    "RateLimit-Policy": {
        "description": "The limit that counts here: requests, and seconds (draft-ietf-httpapi-ratelimit-headers)",
        "schema": {"type": "string"},
        "example": '"read";q=1000;w=1',
    },
    "RateLimit": {
        "description": "What is left of it, and seconds until it begins anew",
        "schema": {"type": "string"},
        "example": '"read";r=998;t=1',
    },
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds", "schema": {"type": "string"}, "example": "5"}}
_LOCATION = {
    "Location": {"description": "Of what was made", "schema": {"type": "string"}, "example": "/v1/…/{id}"}
}
_AUTHENTICATE = {"WWW-Authenticate": {"schema": {"type": "string"}, "example": 'Bearer realm="ExplainMyXray"'}}
_MADE = {"submit_job", "create_batch", "retry_batch"}
"""Operations that tell where to find what they made."""

_PROBLEMS = {
    "400": ("bad-cursor", "This cursor is none of ours: begin again without one."),
    "401": ("unauthenticated", "This server asks for an API key: send Authorization: Bearer emx_…."),
    "403": ("out-of-scope", "This API key lacks the scope 'read'."),
    "406": ("not-acceptable", "The report is to be had as application/json, text/plain, text/html."),
    "409": ("already-ended", "The job had already ended: succeeded."),
    "413": ("image-too-large", "The file has 70000000 bytes; at most 67108864 are accepted."),
    "415": ("not-an-image", "The file is not a PNG, JPEG, TIFF or DICOM image."),
    "422": ("invalid-request", "The request doesn't fit: query.limit."),
    "429": ("too-many-requests", "More than 1000 requests in 1 s: slow down."),
    "502": ("no-report", "4 workers died while reading this image. It is not tried again."),
    "503": ("store-unavailable", "The object store can't be reached. Nothing was accepted; try again later."),
    "504": ("still-running", "The report isn't finished after 120 s. It goes on: see /v1/jobs/{id}."),
    "507": ("store-full", "The object store is full. Nothing was accepted."),
}
_CONFLICT = ("idempotency-conflict", "This idempotency key was used before, for another request.")
_BAD_FORM = ("bad-form", "The form can't be read in the charset that it names.")
_PROBLEMS_OF = {
    ("submit_job", "400"): ("not-json", "This is not JSON."),
    ("create_batch", "400"): _BAD_FORM,
    ("explain", "400"): _BAD_FORM,
    ("ping", "400"): ("not-json", "This is not JSON."),
    ("ping", "413"): ("body-too-large", "The JSON has more bytes than the 262144 that are accepted."),
    ("ping", "422"): ("forbidden-webhook-target", "The webhook URL's host has an address that isn't public."),
    ("submit_job", "409"): _CONFLICT,
    ("create_batch", "409"): (
        "idempotency-conflict",
        "This idempotency key was used before, for another request.",
    ),
    ("retry_batch", "409"): ("nothing-failed", "No item of this batch has failed."),
    ("redeliver_one", "409"): ("still-owed", "This delivery is still being tried."),
    ("receive_upload", "403"): ("bad-upload-url", "This upload URL has expired, or was changed: ask for another."),
}
_NO_SUCH = {"jobs": "job", "renderings": "job", "batches": "batch", "webhooks": "delivery"}


def install(app: FastAPI) -> None:
    """Serve the completed document."""

    def made() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = completed(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    description=app.description,
                    routes=app.routes,
                    separate_input_output_schemas=False,
                )
            )
        return app.openapi_schema

    app.openapi = made  # type: ignore[method-assign]


def completed(schema: dict[str, Any]) -> dict[str, Any]:
    """With examples and headers in each answer."""
    for method, operation in operations(schema):
        if method != "get" and "503" in operation["responses"]:
            operation["responses"].update(copy.deepcopy({str(k): v for k, v in documented(507).items()}))
        for parameter in operation.get("parameters", []):
            if parameter["name"] in examples.PARAMETERS:
                parameter["example"] = examples.PARAMETERS[parameter["name"]]
        for status, response in operation["responses"].items():
            _add_headers(operation, status, response)
            _add_examples(operation, status, response.get("content", {}))
    return schema


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, Operation]]:
    """Each with its method."""
    for path in schema["paths"].values():
        yield from path.items()


def _add_headers(operation: Operation, status: str, response: dict[str, Any]) -> None:
    headers: dict[str, Any] = {}
    if "security" in operation and (int(status) in _SUCCESS or status == "429"):
        headers |= _RATE_LIMIT
    if status in ("429", "503") or (status == _ACCEPTED and operation["operationId"] in _MADE - {"retry_batch"}):
        headers |= _RETRY_AFTER
    if status == _ACCEPTED and operation["operationId"] in _MADE:
        headers |= _LOCATION
    if status == "401":
        headers |= _AUTHENTICATE
    if headers:
        response["headers"] = copy.deepcopy(headers)


def _add_examples(operation: Operation, status: str, content: dict[str, Any]) -> None:
    for kind, answer in content.items():
        found = _EXAMPLES.get(kind, lambda *_: None)(operation, status, answer)
        if found is not None:
            answer["example"] = found


def _problem(operation: Operation, status: str, answer: Any) -> Any:
    kind, detail = _PROBLEMS_OF.get((operation["operationId"], status)) or _PROBLEMS.get(status) or ("", "")
    if status == "404":
        what = _NO_SUCH[operation["tags"][0]]
        kind, detail = f"no-such-{what}", f"There is no {what} with this id."
    errors = [{"where": "query.limit", "what": "Input should be less than or equal to 100"}]
    return document(Problem(int(status), kind, detail, errors=errors if kind == "invalid-request" else None))


def _json(operation: Operation, status: str, answer: Any) -> Any:
    named = str(answer.get("schema", {}).get("$ref", "")).removeprefix(_REF)
    known = (examples.ANSWERS | examples.ACCEPTED) if status == _ACCEPTED else examples.ANSWERS
    by_name: dict[str, BaseModel] = {model.__name__: example for model, example in known.items()}
    if operation["operationId"] == "show_report_as_accepted":
        named = "Report"
    if operation["operationId"] == "readyz":
        return {"ready": True, "checks": {"redis": True, "store": True, "worker": True}}
    return by_name[named].model_dump(mode="json") if named in by_name else None


_EXAMPLES: dict[str, Callable[[Operation, str, Any], Any]] = {
    MEDIA_TYPE: _problem,
    "application/json": _json,
    "text/plain": lambda operation, *_: "ok" if operation["operationId"] == "healthz" else examples.TEXT,
    "text/event-stream": lambda *_: examples.EVENTS,
    "application/x-ndjson": lambda *_: examples.RESULTS,
}
"""By media type; pictures and pages have none."""
