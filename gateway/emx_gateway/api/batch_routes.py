"""/v1/batches."""

import hashlib
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from emx_gateway.api.schemas import Batch, BatchItems, BatchList, links
from emx_gateway.api.submission_bodies import MAX_FIELDS, IdempotencyKey
from emx_gateway.auth.audit import Audits
from emx_gateway.auth.authenticator import Admin, Caller, Reader, Submitter
from emx_gateway.http.bodies import content_type, fitted, read_form
from emx_gateway.http.problems import Problem, documented, invalid_fields
from emx_gateway.services.batch_items import item_page, results
from emx_gateway.services.job_pages import is_place
from emx_gateway.services.manifest_upload import CSV, NDJSON, Manifest, ManifestRow
from emx_gateway.services.service import Service, Services
from emx_shared.imaging import BadImage
from emx_shared.ledger import (
    Ledger,
    NewBatch,
    cancel,
    erase_batch,
    expand,
    failed_rows,
    pause,
    progress,
    resume,
    retry,
    submit_batch,
    submitted_batch_before,
)
from emx_shared.ledger.batches.items import is_paused
from emx_shared.ledger.records import JobState, Outcome, Priority, Row
from emx_shared.ledger.records import Request as BatchRequest

router = APIRouter(prefix="/v1/batches", tags=["batches"])
_GENERAL = (401, 403, 422, 429, 503)
_ONE = documented(*_GENERAL, 404)
_CHANGE = documented(*_GENERAL, 404, 409)


class BatchOptions(BaseModel):
    """What holds for all items."""

    model_config = ConfigDict(extra="forbid")

    priority: Priority = Field(default="backlog")
    webhook_url: str | None = Field(
        default=None,
        max_length=2048,
        description="Called once, when all have ended",
        examples=["https://ris.example.org/hooks/batch"],
    )
    item_webhook_url: str | None = Field(
        default=None,
        max_length=2048,
        description="Called for each item",
        examples=["https://ris.example.org/hooks/xray"],
    )


_FORM = BatchOptions.model_json_schema()
_FORM["properties"]["files"] = {"type": "array", "items": {"type": "string", "format": "binary"}}
_FORM["required"] = ["files"]
_BODY: dict[str, Any] = {
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
    }
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
    service: Services,
    caller: Submitter,
    audit: Audits,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Batch:
    """Submit many studies at once: a few files, or a manifest with up to 100,000 rows.

    A manifest is CSV or NDJSON (options are then query parameters); each row names an image that was uploaded
    before, that the operator put into the store, or that another job has. It is accepted whole or not at all; an
    image that turns out to be missing or damaged fails its own item alone.
    """
    kind = content_type(request)
    if kind in (CSV, NDJSON):
        made = await _of_manifest(service, caller, request, kind, idempotency_key)
    elif kind == "multipart/form-data":
        made = await _of_files(service, caller, request, idempotency_key)
    else:
        raise Problem(
            415, "unknown-content-type", f"Send files as multipart/form-data, or a manifest: {CSV}, {NDJSON}."
        )
    audit.note(caller, "batch.submit", made.id)
    response.headers["Location"] = f"/v1/batches/{made.id}"
    response.headers["Retry-After"] = "2"
    return await run_in_threadpool(_resource, service.ledger, made, None)


@router.get("", responses=documented(*_GENERAL, 400))
def list_batches(
    service: Services,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=100, description="`next_cursor` of the page before")] = None,
) -> BatchList:
    """Batches, the newest first."""
    if cursor is not None and not is_place(cursor):
        raise Problem(400, "bad-cursor", "This cursor is none of ours: begin again without one.")
    ledger = service.ledger
    try:
        places = ledger.redis.listings.batches(caller.tenant, cursor, limit)
    except RedisError:
        raise Problem(503, "list-unavailable", "The list is away for the moment.", {"Retry-After": "5"}) from None
    found = [(ledger.request(id), ledger.outcome(id)) for id, _ in places]
    items = [
        _resource(ledger, one, outcome)
        for one, outcome in found
        if one and one.status == "committed" and not ledger.erasing(one.id)
    ]
    return BatchList(items=items, next_cursor=places[-1][1] if len(places) == limit else None)


@router.get("/{id}", responses=_ONE)
def show_batch(service: Services, caller: Reader, id: str) -> Batch:
    """Progress: counts by state, rate, and time left."""
    return _resource(service.ledger, *service.find(id, caller, "batch"))


@router.get("/{id}/items", responses=_ONE)
def list_items(
    service: Services,
    caller: Reader,
    id: str,
    row: Annotated[int, Query(ge=0, description="The first row of the page")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    state: JobState | None = None,
) -> BatchItems:
    """The rows of a batch in order, with their jobs and states."""
    request, _ = service.find(id, caller, "batch")
    return item_page(service.ledger, request, row, limit, state)


@router.get(
    "/{id}/results.ndjson",
    response_class=StreamingResponse,
    responses={200: {"content": {NDJSON: {}}}, **_ONE},
)
async def stream_results(
    service: Services,
    caller: Reader,
    audit: Audits,
    id: str,
    follow: Annotated[bool, Query(description="Go on until the batch has ended")] = False,
) -> StreamingResponse:
    """A line for each item that has ended: row, name, job, state, and its report or why there is none."""
    request, _ = await run_in_threadpool(service.find, id, caller, "batch")
    audit.note(caller, "results.read", id)
    lines = results(service.ledger, request, follow)
    return StreamingResponse(lines, media_type=NDJSON, headers={"Cache-Control": "private, no-store"})


@router.post("/{id}/pause", responses=_CHANGE)
def pause_batch(service: Services, caller: Submitter, audit: Audits, id: str) -> Batch:
    """Submit no more items; those that wait or are being read go on."""
    request = _open(service, caller, id)
    pause(service.ledger, id)
    audit.note(caller, "batch.pause", id)
    return _resource(service.ledger, request, None)


@router.post("/{id}/resume", responses=_CHANGE)
def resume_batch(service: Services, caller: Submitter, audit: Audits, id: str) -> Batch:
    """Go on with a batch that was paused."""
    request = _open(service, caller, id)
    resume(service.ledger, id)
    audit.note(caller, "batch.resume", id)
    return _resource(service.ledger, request, None)


@router.post("/{id}/cancel", responses=_CHANGE)
def cancel_batch(service: Services, caller: Submitter, audit: Audits, id: str) -> Batch:
    """Cancel what hasn't ended; reports that are there stay."""
    request, _ = service.find(id, caller, "batch")
    outcome = cancel(service.ledger, id)
    if outcome.kind != "cancelled":
        raise Problem(409, "already-ended", f"The batch had already ended: {outcome.state}.")
    expand(service.ledger, id)
    audit.note(caller, "batch.cancel", id)
    return _resource(service.ledger, request, outcome)


@router.delete("/{id}", status_code=202, responses=_ONE)
def erase_one_batch(service: Services, caller: Admin, audit: Audits, id: str) -> Batch:
    """Erase a batch with all its images and reports for good. It is unknown from now on; its many jobs go soon."""
    request, _ = service.find(id, caller, "batch")
    outcome = erase_batch(service.ledger, request)
    audit.note(caller, "batch.erase", id)
    return _resource(service.ledger, request, outcome)


@router.post("/{id}/retry", status_code=202, responses=_CHANGE)
def retry_batch(
    service: Services,
    caller: Submitter,
    audit: Audits,
    response: Response,
    id: str,
    idempotency_key: IdempotencyKey = None,
) -> Batch:
    """Make a new batch of the items that have failed so far."""
    request, _ = service.find(id, caller, "batch")
    new = NewBatch(
        tenant=caller.tenant,
        priority=request.priority,
        webhook_url=request.webhook_url,
        item_webhook_url=request.item_webhook_url,
        idempotency_key=idempotency_key,
        fingerprint=f"retry of {id}",
        retry_of=id,
    )
    made = submitted_batch_before(service.ledger, new)
    if made is None:
        failed = failed_rows(service.ledger, request)
        if not failed:
            raise Problem(409, "nothing-failed", "No item of this batch has failed.")
        service.limiter.charge(caller.tenant, len(failed))
        made = retry(service.ledger, request, failed, new)
    audit.note(caller, "batch.retry", made.id)
    response.headers["Location"] = f"/v1/batches/{made.id}"
    return _resource(service.ledger, made, None)


async def _of_manifest(
    service: Service, caller: Caller, request: Request, kind: str, key: str | None
) -> BatchRequest:
    options = _options(service, caller, dict(request.query_params))
    received = Manifest(kind)
    try:
        await received.receive(request)

        def accept() -> BatchRequest:
            new = _new(caller, options, key, received.sha256)
            if known := submitted_batch_before(service.ledger, new):
                return known
            service.limiter.charge(caller.tenant, received.check())
            return submit_batch(service.ledger, new, received.rows())

        return await run_in_threadpool(accept)
    finally:
        received.close()


async def _of_files(service: Service, caller: Caller, request: Request, key: str | None) -> BatchRequest:
    async with read_form(request, files=service.settings.max_batch_files, fields=MAX_FIELDS) as form:
        files = [part for name, part in form.multi_items() if name == "files" and isinstance(part, UploadFile)]
        if not files:
            raise invalid_fields([{"where": "body.files", "what": "Field required: the images"}])
        options = _options(service, caller, {n: part for n, part in form.multi_items() if isinstance(part, str)})

        def accept() -> BatchRequest:
            rows = [Row(image=f"file:{sha256}") for sha256, _ in _contents(files)]
            digest = hashlib.sha256("\n".join(row.image for row in rows).encode()).hexdigest()
            new = _new(caller, options, key, digest)
            if known := submitted_batch_before(service.ledger, new):
                return known
            for number, (_, data) in enumerate(_contents(files), start=1):
                _check(service, number, data)
            service.limiter.charge(caller.tenant, len(rows))
            return submit_batch(service.ledger, new, rows, _contents(files))

        return await run_in_threadpool(accept)


def _contents(files: list[UploadFile]) -> Iterator[tuple[str, bytes]]:
    for file in files:
        file.file.seek(0)
        data = file.file.read()
        yield hashlib.sha256(data).hexdigest(), data


def _check(service: Service, number: int, data: bytes) -> None:
    """Raises BadImage that tells which file it is."""
    try:
        service.validate(data)
    except BadImage as error:
        raise type(error)(f"File number {number}: {error}") from None


def _options(service: Service, caller: Caller, given: dict[str, str]) -> BatchOptions:
    options = fitted(BatchOptions, {name: value for name, value in given.items() if value})
    for url in (options.webhook_url, options.item_webhook_url):
        service.check_webhook(url, caller.tenant)
    return options


def _new(caller: Caller, options: BatchOptions, key: str | None, digest: str) -> NewBatch:
    fingerprint = hashlib.sha256(f"{digest}\n{options.model_dump_json()}".encode()).hexdigest()
    return NewBatch(tenant=caller.tenant, idempotency_key=key, fingerprint=fingerprint, **options.model_dump())


def _open(service: Service, caller: Caller, id: str) -> BatchRequest:
    request, outcome = service.find(id, caller, "batch")
    if outcome:
        raise Problem(409, "already-ended", f"The batch had already ended: {outcome.state}.")
    return request


def _resource(ledger: Ledger, request: BatchRequest, outcome: Outcome | None) -> Batch:
    so_far = progress(ledger, request)
    counts, ended = so_far.counts, so_far.ended.total()
    if outcome and outcome.kind == "cancelled":  # those that were never submitted, too
        counts = {**counts, "cancelled": counts.get("cancelled", 0) + counts["open"], "open": 0}
    seconds = ((outcome.finished_at if outcome else ledger.store.now()) - request.submitted_at).total_seconds()
    rate = ended / seconds if seconds > 0 and ended else None
    if outcome:
        state = "cancelled" if outcome.kind == "cancelled" else "succeeded"
    else:
        state = "paused" if is_paused(ledger, request.id) else "running"
    return Batch.model_validate(
        {
            "id": request.id,
            "state": state,
            "priority": request.priority,
            "submitted_at": request.submitted_at,
            "finished_at": outcome.finished_at if outcome else None,
            "total": so_far.rows,
            "counts": counts,
            "per_minute": round(60 * rate, 2) if rate else None,
            "seconds_left": round(counts["open"] / rate, 1) if rate and state == "running" else None,
            "retry_of": request.retry_of,
        }
    )
