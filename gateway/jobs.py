"""/v1/jobs and /explain."""

from typing import Annotated, Literal

from fastapi import APIRouter, File, Form, Header, Response, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.concurrency import run_in_threadpool

from gateway.problems import Problem, documented
from gateway.renderings.overlay import overlay_png
from gateway.renderings.text import as_text
from gateway.resources import Job, job_resource
from gateway.service import Service, Services
from shared.ledger import NewJob, cancel, erase
from shared.ledger.records import Outcome, Request
from shared.report import Report
from shared.store import NotFound

router = APIRouter()
Upload = Annotated[UploadFile, File(description="A frontal chest radiograph, PNG or JPEG")]
POLL_AFTER = {"Retry-After": "1"}


@router.post("/v1/jobs", status_code=202, tags=["jobs"], responses=documented(409, 413, 415, 422, 503))
def submit_job(
    service: Services,
    response: Response,
    file: Upload,
    priority: Annotated[Literal["stat", "routine", "backlog"], Form()] = "routine",
    webhook_url: Annotated[str | None, Form(max_length=2048, description="Called when the job ends")] = None,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Job:
    """Submit one study. Poll ``Location`` for the report."""
    service.check_webhook(webhook_url)
    request = _accept(service, file, priority, webhook_url, idempotency_key)
    response.headers["Location"] = f"/v1/jobs/{request.id}"
    response.headers.update(POLL_AFTER)
    return job_resource(service.ledger, request, None)


@router.get("/v1/jobs/{id}", tags=["jobs"], responses=documented(404, 503))
def show_job(service: Services, response: Response, id: str) -> Job:
    """The job's state and, once it succeeded, its report."""
    request, outcome = service.find(id)
    job = job_resource(service.ledger, request, outcome)
    if not job.state.terminal:
        response.headers.update(POLL_AFTER)
    return job


@router.post("/v1/jobs/{id}/cancel", tags=["jobs"], responses=documented(404, 409, 503))
def cancel_job(service: Services, id: str) -> Job:
    """Cancel a job that hasn't ended."""
    request, _ = service.find(id)
    outcome = cancel(service.ledger, id)
    if outcome.kind != "cancelled":
        raise Problem(409, "already-ended", f"The job had already ended: {outcome.state}.")
    return job_resource(service.ledger, request, outcome)


@router.delete("/v1/jobs/{id}", status_code=204, tags=["jobs"], responses=documented(404, 503))
def erase_job(service: Services, id: str) -> None:
    """Erase the image and the report for good."""
    service.find(id)
    erase(service.ledger, id)


@router.get(
    "/v1/jobs/{id}/overlay.png",
    tags=["renderings"],
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, **documented(404, 409, 503)},
)
def show_overlay(service: Services, id: str) -> Response:
    """The image at full resolution with a labelled, coloured box for every abnormality."""
    request, report = _report(service, id)
    image = service.validate(_input(service, request)).image
    return Response(overlay_png(image, report), media_type="image/png", headers=_PRIVATE)


@router.get(
    "/v1/jobs/{id}/input",
    tags=["renderings"],
    response_class=Response,
    responses={200: {"content": {"image/png": {}, "image/jpeg": {}}}, **documented(404, 503)},
)
def show_input(service: Services, id: str) -> Response:
    """The image as it was received."""
    request, _ = service.find(id)
    return Response(_input(service, request), media_type=request.media_type, headers=_PRIVATE)


@router.get(
    "/v1/jobs/{id}/report.txt",
    tags=["renderings"],
    response_class=PlainTextResponse,
    responses=documented(404, 409, 503),
)
def show_text(service: Services, id: str) -> PlainTextResponse:
    """The report as plain text."""
    return PlainTextResponse(as_text(_report(service, id)[1]), headers=_PRIVATE)


@router.get("/v1/schema/report", tags=["renderings"])
def report_schema() -> JSONResponse:
    """JSON Schema of the report."""
    return JSONResponse(Report.model_json_schema(), media_type="application/schema+json")


@router.post("/explain", tags=["simple"], responses=documented(413, 415, 422, 502, 503, 504))
async def explain(service: Services, file: Upload) -> Job:
    """Submit one study, wait, and answer with the finished report. For programs, prefer ``/v1/jobs``."""
    request = await run_in_threadpool(_accept, service, file, "routine", None, None)
    seconds = service.settings.explain_timeout
    outcome = await service.waiting.until_ended(request.id, seconds)
    if outcome is None:
        raise Problem(
            504,
            "still-running",
            f"The report isn't finished after {seconds:.0f} s. It goes on: see /v1/jobs/{request.id}.",
            {"Location": f"/v1/jobs/{request.id}"},
        )
    if outcome.kind != "report":
        why = outcome.failure.message if outcome.failure else f"The job was {outcome.state}."
        raise Problem(502, "no-report", why, {"Location": f"/v1/jobs/{request.id}"})
    return await run_in_threadpool(job_resource, service.ledger, request, outcome)


_PRIVATE = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}


def _accept(
    service: Service,
    file: UploadFile,
    priority: Literal["stat", "routine", "backlog"],
    webhook_url: str | None,
    idempotency_key: str | None,
) -> Request:
    data = file.file.read()
    facts = service.validate(data).facts
    return service.submit(
        NewJob(
            data=data,
            media_type=facts.media_type,
            priority=priority,
            webhook_url=webhook_url,
            idempotency_key=idempotency_key,
        )
    )


def _report(service: Service, id: str) -> tuple[Request, Report]:
    request, outcome = service.find(id)
    return request, _finished(service, id, outcome)


def _finished(service: Service, id: str, outcome: Outcome | None) -> Report:
    if outcome is None or outcome.report is None:
        state = service.ledger.state(id, outcome)
        raise Problem(
            409, "no-report", f"The job has no report: it is {state}.", POLL_AFTER if not outcome else {}
        )
    return outcome.report


def _input(service: Service, request: Request) -> bytes:
    try:
        return service.ledger.input(request)
    except NotFound:
        raise Problem(404, "no-input", "The image is no longer kept.") from None
