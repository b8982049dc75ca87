"""/v1/batches."""

from typing import Annotated, Literal

from fastapi import APIRouter, File, Form, Response, UploadFile

from gateway.access import Reader, Submitter
from gateway.audit import Audits
from gateway.problems import Problem, documented
from gateway.resources import Batch, BatchItem
from gateway.service import Service, Services
from shared.imaging import BadImage
from shared.ledger import NewBatch, cancel, expand, progress, submit_batch
from shared.ledger.batch import item_states
from shared.ledger.records import Outcome, Request

router = APIRouter(tags=["batches"])


@router.post("/v1/batches", status_code=202, responses=documented(401, 403, 413, 415, 422, 429, 503, 507))
def create_batch(
    service: Services,
    caller: Submitter,
    audit: Audits,
    response: Response,
    files: Annotated[list[UploadFile], File(description="Frontal chest radiographs, PNG or JPEG")],
    priority: Annotated[Literal["stat", "routine", "backlog"], Form()] = "backlog",
    webhook_url: Annotated[str | None, Form(max_length=2048, description="Called when all have ended")] = None,
) -> Batch:
    """Submit many studies at once. All files are checked first: either the whole batch is accepted, or none."""
    most = service.settings.max_batch_files
    if len(files) > most:
        raise Problem(413, "too-many-files", f"{len(files)} files; at most {most} are accepted in one batch.")
    service.check_webhook(webhook_url, caller.tenant)
    accepted = [_checked(service, number, file) for number, file in enumerate(files)]
    request = submit_batch(
        service.ledger, NewBatch(accepted, tenant=caller.tenant, priority=priority, webhook_url=webhook_url)
    )
    audit.note(caller, "batch.submit", request.id)
    response.headers["Location"] = f"/v1/batches/{request.id}"
    response.headers["Retry-After"] = "2"
    return _resource(service, request, None)


@router.get("/v1/batches/{id}", responses=documented(401, 403, 404, 422, 429, 503))
def show_batch(service: Services, caller: Reader, id: str) -> Batch:
    """Progress, and the id and state of every item."""
    return _resource(service, *service.find(id, caller, "batch"))


@router.post("/v1/batches/{id}/cancel", responses=documented(401, 403, 404, 409, 422, 429, 503))
def cancel_batch(service: Services, caller: Submitter, audit: Audits, id: str) -> Batch:
    """Cancel what hasn't ended; reports that are there stay."""
    request, _ = service.find(id, caller, "batch")
    outcome = cancel(service.ledger, id)
    if outcome.kind != "cancelled":
        raise Problem(409, "already-ended", f"The batch had already ended: {outcome.state}.")
    expand(service.ledger, id)
    audit.note(caller, "batch.cancel", id)
    return _resource(service, request, outcome)


def _checked(service: Service, number: int, file: UploadFile) -> tuple[bytes, str]:
    data = file.file.read()
    try:
        return data, service.validate(data).facts.media_type
    except BadImage as error:
        raise type(error)(f"File number {number + 1}: {error}") from None


def _resource(service: Service, request: Request, outcome: Outcome | None) -> Batch:
    return Batch(
        id=request.id,
        state=service.ledger.state(request.id, outcome),
        submitted_at=request.submitted_at,
        finished_at=outcome.finished_at if outcome else None,
        total=request.rows or 0,
        counts=progress(service.ledger, request).counts,
        items=[BatchItem(id=item, state=state) for item, state in item_states(service.ledger, request)],
    )
