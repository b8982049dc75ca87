"""What every operation of the OpenAPI document has: headers, and an example of each answer."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from emx_gateway.api import openapi_examples
from emx_gateway.api.openapi_components import add_components
from emx_gateway.http.problems import MEDIA_TYPE, Problem, document, documented, invalid_fields

Operation = dict[str, Any]
_REF, _HEADER = "#/components/schemas/", "#/components/headers/"

_HEADERS: dict[str, dict[str, Any]] = {
    "RateLimit-Policy": {
        "description": "The limit that counts here: requests, and seconds (draft-ietf-httpapi-ratelimit-headers)",
        "schema": {"type": "string"},
        "examples": {
            "submit": {"value": '"submit";q=200;w=1', "summary": "Where the scope `submit` is needed"},
            "read": {"value": '"read";q=1000;w=1', "summary": "Elsewhere"},
        },
    },
    "RateLimit": {
        "description": "What is left of it, and seconds until it begins anew",
        "schema": {"type": "string"},
        "example": '"read";r=998;t=1',
    },
    "Retry-After": {"description": "Seconds", "schema": {"type": "string"}, "example": "5"},
    "WWW-Authenticate": {"schema": {"type": "string"}, "example": 'Bearer realm="ExplainMyXray"'},
    "Preference-Applied": {
        "description": "Seconds that were granted of `Prefer: wait=N`",
        "schema": {"type": "string"},
        "example": "wait=30",
    },
}
_BEFORE_COUNTING = {"401", "403"}
"""Answers to callers who aren't let in; all others say what is left of the limit."""

_SENT_WITH = {
    "401": ("WWW-Authenticate",),
    "429": ("Retry-After",),
    "503": ("Retry-After",),
    "507": ("Retry-After",),
}
_SENT_BY: dict[tuple[str, str], tuple[str, ...]] = {
    ("submit_job", "200"): ("Location", "Preference-Applied"),
    ("submit_job", "202"): ("Location", "Preference-Applied", "Retry-After"),
    ("show_job", "200"): ("Retry-After",),
    ("create_batch", "202"): ("Location", "Retry-After"),
    ("retry_batch", "202"): ("Location",),
    ("explain", "502"): ("Location",),
    ("explain", "504"): ("Location",),
    ("readyz", "503"): (),
}

_PROBLEMS = {
    "400": ("bad-cursor", "Invalid cursor. Omit `cursor` to start at the first page."),
    "401": ("unauthenticated", "This server asks for an API key: send Authorization: Bearer emx_…."),
    "403": ("out-of-scope", "This API key lacks the scope 'read'."),
    "406": (
        "not-acceptable",
        "The report is available as application/json, text/plain, text/html, application/pdf, image/png.",
    ),
    "409": ("already-ended", "The job has already ended: succeeded."),
    "413": ("image-too-large", "The file has 70000000 bytes; at most 67108864 are accepted."),
    "415": ("not-an-image", "The file is not a PNG, JPEG, TIFF or DICOM image."),
    "422": ("invalid-request", "The request is invalid: query.limit."),
    "429": ("too-many-requests", "More than 1000 requests in 1 s: slow down."),
    "502": ("no-report", "4 workers died while reading this image. It is not tried again."),
    "503": ("store-unavailable", "The object store is unavailable. Nothing was accepted. Try again later."),
    "504": ("still-running", "The report isn't finished after 120 s. Fetch it from /v1/jobs/{id}."),
    "507": ("store-full", "The object store is full. Nothing was accepted. Tell the operator."),
}
_CONFLICT = ("idempotency-conflict", "This idempotency key was used before, for another request. Use a new key.")
_BATCH_ENDED = ("already-ended", "The batch has already ended: completed.")
_BAD_FORM = ("bad-form", "The form names an unknown charset, or isn't written in the one that it names.")
_PROBLEMS_OF = {
    ("submit_job", "400"): ("not-json", "This is not JSON."),
    ("create_batch", "400"): _BAD_FORM,
    ("explain", "400"): _BAD_FORM,
    ("ping", "400"): ("not-json", "This is not JSON."),
    ("ping", "413"): ("body-too-large", "The JSON has more bytes than the 262144 that are accepted."),
    ("ping", "422"): ("forbidden-webhook-target", "The webhook URL's host has an address that isn't public."),
    ("show_image", "422"): ("bad-image", "The DICOM file is damaged or cut short."),
    ("export_group", "422"): ("invalid-request", "Name either a study or a patient."),
    ("erase_jobs", "422"): (
        "invalid-request",
        "Name either a study or a patient.",
    ),
    ("submit_job", "409"): _CONFLICT,
    ("create_batch", "409"): _CONFLICT,
    ("submit_feedback", "400"): ("not-json", "This is not JSON."),
    ("submit_feedback", "409"): (
        "feedback-conflict",
        'The newest version is 2. Look at it, and send this feedback again with "after": 2.',
    ),
    ("submit_feedback", "413"): ("body-too-large", "The JSON has more bytes than the 262144 that are accepted."),
    ("submit_feedback", "422"): ("invalid-request", "The request is invalid: body.locations.0.box."),
    ("retry_batch", "409"): ("nothing-failed", "No item of this batch has failed."),
    ("cancel_batch", "409"): _BATCH_ENDED,
    ("pause_batch", "409"): _BATCH_ENDED,
    ("resume_batch", "409"): _BATCH_ENDED,
    ("receive_upload", "403"): (
        "bad-upload-url",
        "This upload URL has expired, or was changed. Get another: POST /v1/uploads.",
    ),
}
_NO_SUCH = {"jobs": "job", "renderings": "job", "feedback": "job", "batches": "batch", "webhooks": "delivery"}
_MISSING = {
    "submit_job": ("body.file", "Field required: the image"),
    "explain": ("body.file", "Field required: the image"),
    "create_batch": ("body.files", "Field required: the images"),
}


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
    """Complete the document with headers, and an example of each answer and parameter."""
    schema["components"]["headers"] = copy.deepcopy(_HEADERS)
    add_components(schema)
    for method, operation in operations(schema):
        _settle_problems(method, operation)
        for parameter in operation.get("parameters", []):
            known = openapi_examples.IDS.get(_tag(operation)) if parameter["name"] == "id" else None
            if known or parameter["name"] in openapi_examples.PARAMETERS:
                parameter["example"] = known or openapi_examples.PARAMETERS[parameter["name"]]
        for status, response in operation["responses"].items():
            _add_headers(operation, status, response)
            _add_examples(operation, status, response.get("content", {}))
    return schema


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, Operation]]:
    """Yield each operation with its method."""
    for path in schema["paths"].values():
        yield from path.items()


def scope(operation: Operation) -> str | None:
    """Return the scope that a key needs; None where no key is asked for."""
    return next((found for needed in operation.get("security", []) for found in needed["HTTPBearer"]), None)


def _settle_problems(method: str, operation: Operation) -> None:
    """Settle two problems: whatever writes may find the store full, and without input there is no 422."""
    responses = operation["responses"]
    if method != "get" and "503" in responses:
        responses.update(copy.deepcopy({str(k): v for k, v in documented(507).items()}))
    if (operation["operationId"], "422") not in _PROBLEMS_OF and not _misfit(operation):
        responses.pop("422", None)


def _add_headers(operation: Operation, status: str, response: dict[str, Any]) -> None:
    id = operation["operationId"]
    names = _SENT_BY.get((id, status), _SENT_WITH.get(status, ()))
    if "security" in operation and status not in _BEFORE_COUNTING:
        names = ("RateLimit-Policy", "RateLimit", *names)
    if (_tag(operation), status) == ("renderings", "409"):  # there will be a report
        names = (*names, "Retry-After")
    if names:
        response["headers"] = {
            name: {"$ref": _HEADER + name} if name in _HEADERS else _location(operation) for name in names
        }


def _location(operation: Operation) -> dict[str, Any]:
    room = "batches" if _tag(operation) == "batches" else "jobs"
    where = f"/v1/{room}/{openapi_examples.IDS[room]}"
    return {"description": "Of what was made", "schema": {"type": "string"}, "example": where}


def _add_examples(operation: Operation, status: str, content: dict[str, Any]) -> None:
    for kind, answer in content.items():
        example = _EXAMPLES.get(kind)
        found = example(operation, status, answer) if example else None
        if found is not None:
            answer["example"] = found


def _problem(operation: Operation, status: str, answer: Any) -> Any:
    kind, detail = _PROBLEMS_OF.get((operation["operationId"], status)) or _PROBLEMS.get(status) or ("", "")
    if status == "403" and (needed := scope(operation)):
        kind, detail = "out-of-scope", f"This API key lacks the scope {needed!r}."
    if status == "404":
        what = _NO_SUCH[_tag(operation)]
        kind, detail = f"no-such-{what}", f"There is no {what} with this id."
    if status == "429" and scope(operation) == "submit":
        detail = "More than 200 requests in 1 s: slow down."
    if status == "409" and _tag(operation) == "renderings":
        kind, detail = "no-report", "The job has no report: it is running."
    if status == "422" and (operation["operationId"], status) not in _PROBLEMS_OF:
        where, what = _misfit(operation) or ("", "")
        return document(invalid_fields([{"where": where, "what": what}]))
    return document(Problem(int(status), kind, detail))


def _misfit(operation: Operation) -> tuple[str, str] | None:
    """Return where a request may be invalid and what is said then: its body, or its first bounded parameter."""
    if missing := _MISSING.get(operation["operationId"]):
        return missing
    for parameter in operation.get("parameters", []):
        allowed = parameter["schema"].get("anyOf", [parameter["schema"]])[0]
        what = None
        if "maximum" in allowed:
            what = f"Input should be less than or equal to {allowed['maximum']}"
        elif "maxLength" in allowed:
            what = f"String should have at most {allowed['maxLength']} characters"
        elif allowed.get("type") == "boolean":
            what = "Input should be a valid boolean, unable to interpret input"
        elif allowed.get("type") == "integer":
            what = "Input should be a valid integer, unable to parse string as an integer"
        if what:
            return f"{parameter['in']}.{parameter['name']}", what
    return None


def _json(operation: Operation, status: str, answer: Any) -> Any:
    if operation["operationId"] == "readyz":
        missing = status == "503"
        return {
            "ready": not missing,
            "checks": {"redis": True, "store": True, "worker": not missing, "courier": True},
        }
    if own := openapi_examples.ANSWERS_OF.get((operation["operationId"], status)):
        return own.model_dump(mode="json")
    named = str(answer.get("schema", {}).get("$ref", "")).removeprefix(_REF)
    examples = openapi_examples.ANSWERS.items()
    by_name: dict[str, BaseModel] = {model.__name__: example for model, example in examples}
    return by_name[named].model_dump(mode="json") if named in by_name else None


def _tag(operation: Operation) -> str:
    return str(operation["tags"][0])


_EXAMPLES: dict[str, Callable[[Operation, str, Any], Any]] = {
    MEDIA_TYPE: _problem,
    "application/json": _json,
    "text/plain": lambda operation, *_: "ok" if operation["operationId"] == "healthz" else openapi_examples.TEXT,
    "text/event-stream": lambda operation, *_: (
        openapi_examples.LISTENED if operation["operationId"] == "listen" else openapi_examples.EVENTS
    ),
    "application/x-ndjson": lambda *_: openapi_examples.RESULTS,
    "text/csv": lambda *_: openapi_examples.BOX_TABLE,
}
"""By media type; pictures and pages have none."""
