"""/v1/jobs and /explain."""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from emx_gateway.api.dependencies import (
    Administrator,
    Audit,
    Cursor,
    GatewayServices,
    Moment,
    ReadCaller,
    Submitter,
    address_of,
    link_to_next,
)
from emx_gateway.api.openapi_components import JOB_EVENTS
from emx_gateway.api.submission_bodies import (
    FORM_BODY,
    REQUEST_BODY,
    IdempotencyKey,
    read_submission,
    read_submission_form,
)
from emx_gateway.auth.audit import RequestAudit
from emx_gateway.auth.authenticator import Caller
from emx_gateway.auth.streams import while_admitted
from emx_gateway.http.problems import Problem, documented
from emx_gateway.schemas import POLL_AFTER, Erased, Job, JobList, links
from emx_gateway.services.export import export
from emx_gateway.services.feedback import feedback_summary
from emx_gateway.services.job_events import job_events
from emx_gateway.services.job_pages import NO_FINDING, JobQuery, job_page
from emx_gateway.services.representations import job_resource
from emx_gateway.services.services import Services
from emx_gateway.services.submissions import JobSubmission
from emx_shared.contracts.findings import FINDINGS
from emx_shared.contracts.states import JobState
from emx_shared.ledger import Ledger, cancel, erase, erase_group
from emx_shared.ledger.records import JobRecord, Outcome, Priority

router = APIRouter()
LONGEST_WAIT = 60
"""Seconds that a client may wait for a job in one request."""

_WAIT = re.compile(r"(?:^|,)\s*wait=(\d{1,9})\s*(?:$|[,;])")
_LINKS = links(
    "show_job",
    "watch_job",
    "show_report_as_accepted",
    "show_report",
    "show_text",
    "show_html",
    "show_pdf",
    "show_overlay",
    "show_input",
    "cancel_job",
    "erase_job",
)
_GENERAL = (401, 403, 422, 429, 503)


FINDING_CODES = (*(finding.code for finding in FINDINGS), NO_FINDING)


def _known_finding(code: str) -> str:
    if code not in FINDING_CODES:
        what = "No finding has this code. Use one of the finding vocabulary, such as pleural_effusion, or none"
        raise PydanticCustomError("finding", what)
    return code


FindingCode = Annotated[str, AfterValidator(_known_finding), Field(json_schema_extra={"enum": [*FINDING_CODES]})]
Wait = Annotated[int, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait for the job's end")]


@router.post(
    "/v1/jobs",
    status_code=202,
    tags=["jobs"],
    openapi_extra=REQUEST_BODY,
    responses={
        200: {
            "model": Job,
            "description": "The job has ended (`Prefer: wait=N`, or a repeated idempotency key)",
            "links": _LINKS,
        },
        202: {"links": _LINKS},
        **documented(400, *_GENERAL, 409, 413, 415, 507),
    },
)
async def submit_job(
    services: GatewayServices,
    caller: Submitter,
    audit: Audit,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    prefer: Annotated[str | None, Header(description="wait=N: up to 60 seconds for the report")] = None,
) -> Job:
    """Submit one image. Poll ``Location`` for the report, wait there, or receive a webhook.

    Send the image as the file of a form, as the body itself (options are then query parameters), or upload it
    first. A submission that is sent again with the same ``Idempotency-Key`` returns the first job.
    """
    accepted = await _accept(services, caller, audit, request, read_submission, idempotency_key)
    job = await run_in_threadpool(_as_it_is, services.ledger, accepted)
    response.headers["Location"] = address_of(request, f"/v1/jobs/{accepted.id}")
    seconds = _preferred(prefer)
    if seconds is not None:
        response.headers["Preference-Applied"] = f"wait={seconds}"
    if seconds and not job.state.terminal:
        outcome = await services.updates.until_ended(accepted.id, seconds)
        job = await run_in_threadpool(job_resource, services.ledger, accepted, outcome)
    if job.report:
        audit.note(caller, "report.read", job.id)
    if job.state.terminal:
        response.status_code = 200
    else:
        response.headers.update(POLL_AFTER)
    return job


@router.get("/v1/jobs", tags=["jobs"], responses=documented(400, *_GENERAL))
def list_jobs(
    services: GatewayServices,
    caller: ReadCaller,
    audit: Audit,
    request: Request,
    response: Response,
    state: JobState | None = None,
    priority: Priority | None = None,
    study: Annotated[str | None, Query(min_length=1, max_length=255)] = None,
    patient: Annotated[str | None, Query(min_length=1, max_length=255)] = None,
    submitted_after: Moment | None = None,
    submitted_before: Moment | None = None,
    finding: Annotated[
        FindingCode | None, Query(description="Finding that the report names, by its code; none: no finding")
    ] = None,
    include: Annotated[
        list[Literal["summary"]] | None, Query(description="`summary`: each job's report in brief")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 20,
    cursor: Cursor = None,
) -> JobList:
    """List jobs, the newest first, without their reports; with `include=summary`, with what these say in brief."""
    looked_into = {"patient": patient, "study": study, "finding": finding, "summary": include}
    for kind, asked in looked_into.items():
        if asked is not None:
            audit.note(caller, "jobs.list", kind)
    wanted = JobQuery(state, priority, study, patient, submitted_after, submitted_before, finding)
    page = job_page(services.ledger, services.readers, caller.tenant, wanted, limit, cursor, bool(include))
    link_to_next(request, response, "cursor", page.next_cursor)
    return page


@router.delete("/v1/jobs", tags=["jobs"], responses=documented(*_GENERAL))
def erase_jobs(
    services: GatewayServices,
    caller: Administrator,
    audit: Audit,
    study: Annotated[str | None, Query(min_length=1, max_length=255)] = None,
    patient: Annotated[str | None, Query(min_length=1, max_length=255)] = None,
) -> Erased:
    """Erase every image and report of a study or of a patient, for good."""
    kind, name = _group(study, patient)
    audit.note(caller, f"{kind}.erase", kind)  # its name would be patient data
    erased = erase_group(services.ledger, caller.tenant, kind, name)
    return Erased(erased=erased)


@router.get(
    "/v1/export",
    tags=["jobs"],
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": {}}}, **documented(*_GENERAL)},
)
def export_group(
    services: GatewayServices,
    caller: Administrator,
    audit: Audit,
    study: Annotated[str | None, Query(min_length=1, max_length=255)] = None,
    patient: Annotated[str | None, Query(min_length=1, max_length=255)] = None,
) -> StreamingResponse:
    """Fetch all that is stored of a study or of a patient as a ZIP file.

    It has requests, reports, images, readers' feedback and webhooks.
    """
    kind, name = _group(study, patient)
    audit.note(caller, f"{kind}.export", kind)
    pieces = export(services.ledger, caller.tenant, kind, name)
    return StreamingResponse(pieces, media_type="application/zip")


@router.get("/v1/jobs/{id}", tags=["jobs"], responses=documented(*_GENERAL, 404))
async def show_job(
    services: GatewayServices, caller: ReadCaller, audit: Audit, response: Response, id: str, wait: Wait = 0
) -> Job:
    """Fetch a job's current state and, once it succeeded, its report.

    With ``wait``, the answer comes when the job ends, or after so many seconds.
    """
    record, outcome = await run_in_threadpool(services.find_job, id, caller)
    if outcome is None and wait:
        outcome = await services.updates.until_ended(id, wait)
    job = await run_in_threadpool(_with_feedback, services.ledger, record, outcome)
    if job.report:
        audit.note(caller, "report.read", id)
    if not job.state.terminal:
        response.headers.update(POLL_AFTER)
    return job


@router.get(
    "/v1/jobs/{id}/events",
    tags=["jobs"],
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {"schema": JOB_EVENTS}}}, **documented(*_GENERAL, 404)},
)
async def watch_job(
    services: GatewayServices,
    caller: ReadCaller,
    audit: Audit,
    request: Request,
    id: str,
    last_event_id: Annotated[str | None, Header(max_length=100)] = None,
) -> EventSourceResponse:
    """Stream server-sent events: ``state`` changes, ``text`` as the report is written, ``ended`` with the job.

    ``text`` has an ``offset`` in characters: if it is less than what you have, another worker started anew.
    """
    record, _ = await run_in_threadpool(services.find_job, id, caller)
    audit.note(caller, "report.read", id)
    events = while_admitted(request, caller, job_events(services, record, last_event_id))
    return EventSourceResponse(events, headers={"Cache-Control": "no-store"})


@router.post("/v1/jobs/{id}/cancel", tags=["jobs"], responses=documented(*_GENERAL, 404, 409))
def cancel_job(services: GatewayServices, caller: Submitter, audit: Audit, id: str) -> Job:
    """Cancel a job that hasn't ended, whether it is waiting or being read."""
    record, _ = services.find_job(id, caller)
    audit.note(caller, "job.cancel", id)
    outcome = cancel(services.ledger, id)
    if outcome.state != JobState.CANCELLED:
        raise Problem(409, "already-ended", f"The job has already ended: {outcome.state}.")
    return job_resource(services.ledger, record, outcome)


@router.delete("/v1/jobs/{id}", status_code=204, tags=["jobs"], responses=documented(*_GENERAL, 404))
def erase_job(services: GatewayServices, caller: Administrator, audit: Audit, id: str) -> None:
    """Erase a job's image and report, for good."""
    services.check_erasable_job(id, caller)
    audit.note(caller, "job.erase", id)
    erase(services.ledger, id)


@router.post(
    "/explain",
    tags=["simple"],
    openapi_extra=FORM_BODY,
    responses=documented(400, *_GENERAL, 413, 415, 502, 504, 507),
)
async def explain(services: GatewayServices, caller: Submitter, audit: Audit, request: Request) -> Job:
    """Submit one image, wait, and answer with the finished report. Programs should prefer ``/v1/jobs``."""
    accepted = await _accept(services, caller, audit, request, read_submission_form, None)
    address = address_of(request, f"/v1/jobs/{accepted.id}")
    where = {"Location": address}
    seconds = services.settings.explain_timeout
    outcome = await services.updates.until_ended(accepted.id, seconds)
    if outcome is None and services.updates.stopping:
        detail = f"This server stops. The report will be at {address}; don't send the image again."
        raise Problem(503, "stopping", detail, {**where, "Retry-After": "2"})
    if outcome is None:
        detail = f"The report isn't finished after {seconds:.0f} s. Fetch it from {address}."
        raise Problem(504, "still-running", detail, where)
    if outcome.report is None:
        why = outcome.failure.message if outcome.failure else f"The job was {outcome.state}."
        raise Problem(502, "no-report", why, where)
    audit.note(caller, "report.read", accepted.id)
    return await run_in_threadpool(job_resource, services.ledger, accepted, outcome)


def _group(study: str | None, patient: str | None) -> tuple[str, str]:
    if study is not None and patient is None:
        return "study", study
    if patient is not None and study is None:
        return "patient", patient
    raise Problem(422, "invalid-request", "Name either a study or a patient.")


async def _accept(
    services: Services,
    caller: Caller,
    audit: RequestAudit,
    request: Request,
    read: Callable[[Request, int], Awaitable[JobSubmission]],
    idempotency_key: str | None,
) -> JobRecord:
    """Receive a submission and accept it. Its image is let go before anyone waits for the report."""
    most = services.settings.max_upload_bytes
    async with services.bodies.room(request, caller.tenant, most):
        sent = await read(request, most)
        announce = partial(audit.note, caller, "job.submit")
        return await services.submissions.submit_job(caller, sent, idempotency_key, announce)


def _as_it_is(ledger: Ledger, job: JobRecord) -> Job:
    return job_resource(ledger, job, ledger.outcome(job.id))


def _with_feedback(ledger: Ledger, job: JobRecord, outcome: Outcome | None) -> Job:
    found = job_resource(ledger, job, outcome)
    return found.model_copy(update={"feedback": feedback_summary(ledger, job.id)}) if found.report else found


def _preferred(prefer: str | None) -> int | None:
    """Return the seconds to wait (RFC 7240); what can't be understood is no preference."""
    found = _WAIT.search(prefer or "")
    return min(int(found[1]), LONGEST_WAIT) if found else None
