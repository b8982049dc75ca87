"""/v1/jobs and /explain."""

import re
from dataclasses import replace
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BeforeValidator
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from emx_gateway.api.schemas import POLL_AFTER, Erased, Job, JobList, job_resource, links
from emx_gateway.api.submission_bodies import (
    FORM_BODY,
    REQUEST_BODY,
    IdempotencyKey,
    JobOptions,
    Submission,
    submission,
    submission_of_form,
)
from emx_gateway.api.upload_routes import take_upload
from emx_gateway.auth.audit import Audits
from emx_gateway.auth.authenticator import Admin, Caller, Reader, Submitter
from emx_gateway.http.problems import Problem, documented
from emx_gateway.services.job_events import job_events
from emx_gateway.services.job_pages import Filter, page
from emx_gateway.services.service import Service, Services
from emx_shared.ledger import NewJob, cancel, erase, erase_group, object_keys, submitted_before
from emx_shared.ledger.records import JobState, Priority
from emx_shared.ledger.records import Request as JobRequest

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


def _written_out(moment: object) -> object:
    if isinstance(moment, str) and moment.lstrip("+-").replace(".", "", 1).isdigit():
        raise ValueError("a time is written as RFC 3339 says: 2026-03-04T05:06:07Z")
    return moment


Moment = Annotated[datetime, BeforeValidator(_written_out)]
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
    service: Services,
    caller: Submitter,
    audit: Audits,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    prefer: Annotated[str | None, Header(description="wait=N: up to 60 seconds for the report")] = None,
) -> Job:
    """Submit one study. Poll ``Location`` for the report, wait there, or let a webhook call you.

    The image comes as the file of a form, as the body itself (options are then query parameters), or was uploaded
    before. Sent again with the same ``Idempotency-Key``, a submission gives the job that it gave first.
    """
    sent = await submission(request, service.settings.max_upload_bytes)

    def accept() -> tuple[JobRequest, Job]:
        accepted = _accept(service, caller, sent, idempotency_key)
        return accepted, job_resource(service.ledger, accepted, service.ledger.outcome(accepted.id))

    accepted, job = await run_in_threadpool(accept)
    audit.note(caller, "job.submit", accepted.id)
    response.headers["Location"] = f"/v1/jobs/{accepted.id}"
    seconds = _preferred(prefer)
    if seconds is not None:
        response.headers["Preference-Applied"] = f"wait={seconds}"
    if seconds and not job.state.terminal:
        outcome = await service.waiting.until_ended(accepted.id, seconds)
        job = await run_in_threadpool(job_resource, service.ledger, accepted, outcome)
    if job.state.terminal:
        response.status_code = 200
    else:
        response.headers.update(POLL_AFTER)
    return job


@router.get("/v1/jobs", tags=["jobs"], responses=documented(400, *_GENERAL))
def list_jobs(
    service: Services,
    caller: Reader,
    state: JobState | None = None,
    priority: Priority | None = None,
    study: Annotated[str | None, Query(min_length=1, max_length=255)] = None,
    patient: Annotated[str | None, Query(min_length=1, max_length=255)] = None,
    submitted_after: Moment | None = None,
    submitted_before: Moment | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=100, description="`next_cursor` of the page before")] = None,
) -> JobList:
    """Jobs, the newest first, without their reports."""
    wanted = Filter(state, priority, study, patient, submitted_after, submitted_before)
    return page(service, caller, wanted, limit, cursor)


@router.delete("/v1/jobs", tags=["jobs"], responses=documented(*_GENERAL))
def erase_jobs(
    service: Services,
    caller: Admin,
    audit: Audits,
    study: Annotated[str | None, Query(min_length=1, max_length=255)] = None,
    patient: Annotated[str | None, Query(min_length=1, max_length=255)] = None,
) -> Erased:
    """Erase every image and report of a study, or of a patient, for good."""
    if (study is None) == (patient is None):
        raise Problem(422, "invalid-request", "Name either a study or a patient whose jobs are to be erased.")
    kind, name = ("study", study) if study is not None else ("patient", patient)
    erased = erase_group(service.ledger, caller.tenant, kind, name or "")
    audit.note(caller, f"{kind}.erase", str(erased))
    return Erased(erased=erased)


@router.get("/v1/jobs/{id}", tags=["jobs"], responses=documented(*_GENERAL, 404))
async def show_job(
    service: Services, caller: Reader, audit: Audits, response: Response, id: str, wait: Wait = 0
) -> Job:
    """The job's state and, once it succeeded, its report. ``wait``: answer when it ends, or after so long."""
    request, outcome = await run_in_threadpool(service.find, id, caller)
    if outcome is None and wait:
        outcome = await service.waiting.until_ended(id, wait)
    job = await run_in_threadpool(job_resource, service.ledger, request, outcome)
    if job.report:
        audit.note(caller, "report.read", id)
    if not job.state.terminal:
        response.headers.update(POLL_AFTER)
    return job


@router.get(
    "/v1/jobs/{id}/events",
    tags=["jobs"],
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {}}}, **documented(*_GENERAL, 404)},
)
async def watch_job(
    service: Services,
    caller: Reader,
    audit: Audits,
    id: str,
    last_event_id: Annotated[str | None, Header(max_length=100)] = None,
) -> EventSourceResponse:
    """Server-sent events: ``state`` when it changes, ``text`` as the report is written, ``ended`` with the job.

    ``text`` has an ``offset`` in characters: where it is less than what you have, another worker began again.
    """
    request, _ = await run_in_threadpool(service.find, id, caller)
    audit.note(caller, "report.read", id)
    return EventSourceResponse(job_events(service, request, last_event_id), headers={"Cache-Control": "no-store"})


@router.post("/v1/jobs/{id}/cancel", tags=["jobs"], responses=documented(*_GENERAL, 404, 409))
def cancel_job(service: Services, caller: Submitter, audit: Audits, id: str) -> Job:
    """Cancel a job that hasn't ended, whether it waits or is being read."""
    request, _ = service.find(id, caller)
    outcome = cancel(service.ledger, id)
    if outcome.kind != "cancelled":
        raise Problem(409, "already-ended", f"The job had already ended: {outcome.state}.")
    audit.note(caller, "job.cancel", id)
    return job_resource(service.ledger, request, outcome)


@router.delete("/v1/jobs/{id}", status_code=204, tags=["jobs"], responses=documented(*_GENERAL, 404))
def erase_job(service: Services, caller: Admin, audit: Audits, id: str) -> None:
    """Erase the image and the report for good."""
    service.find(id, caller)
    erase(service.ledger, id)
    audit.note(caller, "job.erase", id)


@router.post(
    "/explain",
    tags=["simple"],
    openapi_extra=FORM_BODY,
    responses=documented(400, *_GENERAL, 413, 415, 502, 504, 507),
)
async def explain(service: Services, caller: Submitter, audit: Audits, request: Request) -> Job:
    """Submit one study, wait, and answer with the finished report. For programs, prefer ``/v1/jobs``."""
    sent = await submission_of_form(request)
    accepted = await run_in_threadpool(_accept, service, caller, sent, None)
    audit.note(caller, "job.submit", accepted.id)
    where = {"Location": f"/v1/jobs/{accepted.id}"}
    seconds = service.settings.explain_timeout
    outcome = await service.waiting.until_ended(accepted.id, seconds)
    if outcome is None:
        detail = f"The report isn't finished after {seconds:.0f} s. It goes on: see /v1/jobs/{accepted.id}."
        raise Problem(504, "still-running", detail, where)
    if outcome.kind != "report":
        why = outcome.failure.message if outcome.failure else f"The job was {outcome.state}."
        raise Problem(502, "no-report", why, where)
    return await run_in_threadpool(job_resource, service.ledger, accepted, outcome)


def _accept(service: Service, caller: Caller, sent: Submission, idempotency_key: str | None) -> JobRequest:
    options = sent.options
    new = NewJob(
        data=sent.data or b"",
        media_type="",
        tenant=caller.tenant,
        upload=sent.upload,
        idempotency_key=idempotency_key,
        **options.model_dump(include=set(JobOptions.model_fields)),
    )
    if known := submitted_before(service.ledger, new):
        return known
    service.check_webhook(options.webhook_url, caller.tenant)
    data = take_upload(service, caller, sent.upload) if sent.upload else new.data
    request = service.submit(replace(new, data=data, media_type=service.validate(data)))
    if sent.upload:
        service.ledger.store.delete(object_keys.upload(caller.tenant, sent.upload))
    return request


def _preferred(prefer: str | None) -> int | None:
    """Seconds to wait, by RFC 7240; what can't be understood is no preference."""
    found = _WAIT.search(prefer or "")
    return min(int(found[1]), LONGEST_WAIT) if found else None
