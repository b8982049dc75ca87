"""/v1/batches."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from emx_gateway.api.dependencies import (
    Administrator,
    Audit,
    Cursor,
    GatewayServices,
    ReadCaller,
    Submitter,
    address_of,
    link_to_next,
)
from emx_gateway.api.submission_bodies import (
    MAX_FIELDS,
    IdempotencyKey,
    options_in_query,
    refuse_options_in_query,
)
from emx_gateway.auth.authenticator import Caller
from emx_gateway.auth.streams import while_admitted
from emx_gateway.http.bodies import content_type, read_form, validate
from emx_gateway.http.problems import Problem, documented, invalid_fields
from emx_gateway.schemas import Batch, BatchItems, BatchList, BatchOptions, BatchResult, ManifestRow, links
from emx_gateway.services.batch_items import item_page
from emx_gateway.services.batch_results import ResultCursor, batch_results
from emx_gateway.services.job_pages import check_cursor
from emx_gateway.services.manifest_upload import CSV, NDJSON, ManifestUpload
from emx_gateway.services.representations import batch_resource
from emx_gateway.services.services import Services
from emx_gateway.services.submissions import Announce, NamedFile
from emx_shared.contracts.states import BatchState, JobState
from emx_shared.ledger import advance_batch, cancel
from emx_shared.ledger import erase_batch as erase
from emx_shared.ledger import pause_batch as pause
from emx_shared.ledger import resume_batch as resume
from emx_shared.ledger.records import BatchRecord, Outcome, UnreadableRecord

router = APIRouter(prefix="/v1/batches", tags=["batches"])
_GENERAL = (401, 403, 422, 429, 503)
_ONE = documented(*_GENERAL, 404)
_CHANGE = documented(*_GENERAL, 404, 409)

_FORM = BatchOptions.model_json_schema()
_FORM["properties"]["files"] = {"type": "array", "items": {"type": "string", "format": "binary"}}
_FORM["required"] = ["files"]
_FORM["title"] = "BatchForm"
_BODY: dict[str, Any] = {
    "parameters": options_in_query(BatchOptions, {}),
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _FORM},
            NDJSON: {
                "schema": ManifestRow.model_json_schema(),
                "example": {"image": "import:2019/0001.dcm", "name": "0001", "metadata": {"arm": "control"}},
            },
            CSV: {"schema": {"type": "string"}, "example": "image,name,arm\nimport:2019/0001.dcm,0001,control\n"},
        },
    },
}
_LINKS = links(
    "show_batch", "list_items", "stream_results", "pause_batch", "resume_batch", "cancel_batch", "retry_batch"
)


@router.post(
    "",
    status_code=202,
    openapi_extra=_BODY,
    responses={202: {"links": _LINKS}, **documented(*_GENERAL, 400, 409, 413, 415, 507)},
)
async def create_batch(
    services: GatewayServices,
    caller: Submitter,
    audit: Audit,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Batch:
    """Submit many images at once: a few files, or a manifest with up to 100,000 rows.

    The names of a form's files become the names of the rows, and are returned with the results.

    A manifest is CSV or NDJSON (options are then query parameters); each row names an image that was uploaded
    before, that the operator put into the store, or that another job has. It is accepted whole or not at all; an
    image that turns out to be missing or damaged fails its own item only.
    """
    kind, most = content_type(request), services.settings.max_upload_bytes
    announce = partial(audit.note, caller, "batch.submit")
    if kind not in (CSV, NDJSON, "multipart/form-data"):
        raise Problem(
            415, "unknown-content-type", f"Send files as multipart/form-data, or a manifest as {CSV} or {NDJSON}."
        )
    async with services.bodies.room(request, caller.tenant, most):
        if kind in (CSV, NDJSON):
            batch = await _submit_manifest(services, caller, request, kind, idempotency_key, announce)
        else:
            batch = await _submit_files(services, caller, request, idempotency_key, announce)
    response.headers["Location"] = address_of(request, f"/v1/batches/{batch.id}")
    response.headers["Retry-After"] = "2"
    return await run_in_threadpool(batch_resource, services.ledger, batch, None)


@router.get("", responses=documented(*_GENERAL, 400))
def list_batches(
    services: GatewayServices,
    caller: ReadCaller,
    request: Request,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Cursor = None,
) -> BatchList:
    """List batches, the newest first."""
    check_cursor(cursor)
    ledger = services.ledger
    try:
        places = ledger.redis.listings.batches(caller.tenant, cursor, limit)
    except RedisError:
        detail = "The list of batches is unavailable for the moment. Try again later."
        raise Problem(503, "list-unavailable", detail, {"Retry-After": "5"}) from None
    items, unreadable = list[Batch](), list[str]()
    for id, _ in places:
        try:
            batch = ledger.batch(id)
            if batch and not ledger.erasing(id):
                items.append(batch_resource(ledger, batch, ledger.outcome(id)))
        except UnreadableRecord:
            unreadable.append(id)
    next_cursor = places[-1][1] if len(places) == limit else None
    link_to_next(request, response, "cursor", next_cursor)
    return BatchList(items=items, unreadable=unreadable, next_cursor=next_cursor)


@router.get("/{id}", responses=_ONE)
def show_batch(services: GatewayServices, caller: ReadCaller, id: str) -> Batch:
    """Fetch a batch's progress: counts by state, rate, and time left."""
    return batch_resource(services.ledger, *services.find_batch(id, caller))


@router.get("/{id}/items", responses=_ONE)
def list_items(
    services: GatewayServices,
    caller: ReadCaller,
    request: Request,
    response: Response,
    id: str,
    row: Annotated[int, Query(ge=0, description="The first row of the page")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    state: JobState | None = None,
) -> BatchItems:
    """List the rows of a batch in order, with their jobs and states."""
    batch, outcome = services.find_batch(id, caller)
    page = item_page(services.ledger, batch, outcome, row, limit, state)
    link_to_next(request, response, "row", page.next_row)
    return page


@router.get(
    "/{id}/results.ndjson",
    response_class=StreamingResponse,
    responses={
        200: {"content": {NDJSON: {"schema": BatchResult.model_json_schema()}}},
        **documented(*_GENERAL, 400, 404),
    },
)
async def stream_results(
    services: GatewayServices,
    caller: ReadCaller,
    audit: Audit,
    request: Request,
    id: str,
    follow: Annotated[bool, Query(description="Continue until the batch has ended")] = False,
    after: Annotated[
        str | None, Query(max_length=100, description="`cursor` of the last line received, to resume behind it")
    ] = None,
) -> StreamingResponse:
    """Stream a line for each item that has ended: row, name, job, state, and its report or why there is none.

    Lines come in the order in which items end. To resume a stream that broke, send the `cursor` of the last line
    as `after`: rows that ended within some seconds before it may come again. While a followed batch has no news,
    an empty line comes every 15 seconds.
    """
    place = ResultCursor.parse(after) if after else None
    batch, _ = await run_in_threadpool(services.find_batch, id, caller)
    audit.note(caller, "results.read", id)
    lines = while_admitted(request, caller, batch_results(services.ledger, batch, follow, place))
    live = {"Content-Encoding": "identity"} if follow else {}  # compressed, lines would wait for each other
    return StreamingResponse(lines, media_type=NDJSON, headers=live)


@router.post("/{id}/pause", responses=_CHANGE)
def pause_batch(services: GatewayServices, caller: Submitter, audit: Audit, id: str) -> Batch:
    """Submit no more items; those that are waiting or being read continue."""
    batch = _find_open(services, caller, id)
    audit.note(caller, "batch.pause", id)
    pause(services.ledger, id)
    return batch_resource(services.ledger, batch, None)


@router.post("/{id}/resume", responses=_CHANGE)
def resume_batch(services: GatewayServices, caller: Submitter, audit: Audit, id: str) -> Batch:
    """Resume a paused batch."""
    batch = _find_open(services, caller, id)
    audit.note(caller, "batch.resume", id)
    resume(services.ledger, id)
    return batch_resource(services.ledger, batch, None)


@router.post("/{id}/cancel", responses=_CHANGE)
def cancel_batch(services: GatewayServices, caller: Submitter, audit: Audit, id: str) -> Batch:
    """Cancel every item that hasn't ended; finished reports stay."""
    batch, _ = services.find_batch(id, caller)
    audit.note(caller, "batch.cancel", id)
    outcome = cancel(services.ledger, id)
    if outcome.state != JobState.CANCELLED:
        raise _already_ended(outcome)
    advance_batch(services.ledger, id)
    return batch_resource(services.ledger, batch, outcome)


@router.delete("/{id}", status_code=202, responses=_ONE)
def erase_batch(services: GatewayServices, caller: Administrator, audit: Audit, id: str) -> Batch:
    """Erase a batch with all its images and reports, for good.

    The batch is unknown from now on; its jobs are erased soon after.
    """
    batch = services.find_erasable_batch(id, caller)
    audit.note(caller, "batch.erase", id)
    outcome = erase(services.ledger, batch)
    return batch_resource(services.ledger, batch, outcome)


@router.post("/{id}/retry", status_code=202, responses=_CHANGE)
def retry_batch(
    services: GatewayServices,
    caller: Submitter,
    audit: Audit,
    request: Request,
    response: Response,
    id: str,
    include_permanent: Annotated[
        bool, Query(description="Also items whose image would fail again, such as a damaged file")
    ] = False,
    idempotency_key: IdempotencyKey = None,
) -> Batch:
    """Create a new batch of the items that have failed so far, except where the image itself is at fault.

    Left out are the failures `bad-image`, `not-an-image`, `image-too-large`, `image` and `poison`.
    """
    batch, _ = services.find_batch(id, caller)
    announce = partial(audit.note, caller, "batch.retry")
    retried = services.submissions.retry(caller, batch, include_permanent, idempotency_key, announce)
    response.headers["Location"] = address_of(request, f"/v1/batches/{retried.id}")
    return batch_resource(services.ledger, retried, None)


async def _submit_manifest(
    services: Services, caller: Caller, request: Request, kind: str, key: str | None, announce: Announce
) -> BatchRecord:
    options = _options(dict(request.query_params))
    received = ManifestUpload(kind)
    try:
        await received.receive(request)
        return await run_in_threadpool(
            services.submissions.submit_manifest, caller, options, received, key, announce
        )
    finally:
        received.close()


async def _submit_files(
    services: Services, caller: Caller, request: Request, key: str | None, announce: Announce
) -> BatchRecord:
    refuse_options_in_query(request)
    async with read_form(request, files=services.settings.max_batch_files, fields=MAX_FIELDS) as form:
        parts = form.multi_items()
        files = [
            NamedFile(part.filename, part.file)
            for name, part in parts
            if name == "files" and isinstance(part, UploadFile)
        ]
        if not files:
            raise invalid_fields([{"where": "body.files", "what": "Field required: the images"}])
        options = _options({name: part for name, part in parts if isinstance(part, str)})
        return await services.submissions.submit_files(caller, options, files, key, announce)


def _options(given: dict[str, str]) -> BatchOptions:
    return validate(BatchOptions, {name: value for name, value in given.items() if value})


def _find_open(services: Services, caller: Caller, id: str) -> BatchRecord:
    batch, outcome = services.find_batch(id, caller)
    if outcome:
        raise _already_ended(outcome)
    return batch


def _already_ended(outcome: Outcome) -> Problem:
    state = BatchState.of_outcome(outcome.state)
    return Problem(409, "already-ended", f"The batch has already ended: {state}.")
