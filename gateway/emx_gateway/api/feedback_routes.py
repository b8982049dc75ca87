"""/v1/jobs/{id}/feedback and /v1/feedback: what readers say of reports, to look at and to train on."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from emx_gateway.api.dependencies import Audit, Cursor, GatewayServices, ReadCaller, Submitter, link_to_next
from emx_gateway.auth.audit import RequestAudit
from emx_gateway.auth.authenticator import Caller
from emx_gateway.feedback_schemas import (
    CocoFile,
    Feedback,
    FeedbackAgreement,
    FeedbackList,
    FeedbackVersions,
    NewFeedback,
)
from emx_gateway.http.bodies import read_json, validate
from emx_gateway.http.problems import Problem, documented
from emx_gateway.services.feedback import feedback_resource, feedback_version
from emx_gateway.services.feedback_export import box_table, coco_file, reviewed_images
from emx_gateway.services.feedback_pages import FeedbackQuery, agreement, feedback_page
from emx_gateway.services.services import Services
from emx_shared.contracts.report import Report
from emx_shared.ledger import MOST_VERSIONS, BeingErased, FeedbackConflict, TooManyVersions, add_feedback
from emx_shared.ledger.records import FeedbackVersion, JobRecord, Verdict

router = APIRouter(tags=["feedback"])
_GENERAL = (401, 403, 422, 429, 503)
_ALL = "all"
"""What the audit log says was read where it was every reviewed job."""

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": NewFeedback.model_json_schema(),
                "example": {
                    "reviewer": "AB",
                    "verdict": "disagree",
                    "comment": "The effusion reaches higher.",
                    "after": 0,
                    "locations": [
                        {
                            "of": 0,
                            "verdict": "corrected",
                            "label": "pleural effusion",
                            "laterality": "left",
                            "box": {"xmin": 614.4, "ymin": 512.0, "xmax": 911.36, "ymax": 891.0},
                        }
                    ],
                },
            }
        },
    }
}


@router.post(
    "/v1/jobs/{id}/feedback",
    status_code=201,
    openapi_extra=_BODY,
    responses=documented(400, *_GENERAL, 404, 409, 413),
)
async def submit_feedback(
    services: GatewayServices, caller: Submitter, audit: Audit, request: Request, id: str
) -> Feedback:
    """Add a version of a reader's feedback on a job's report. The report itself never changes.

    ``after`` names the newest version: if another reader was first, the answer is 409 and nothing is lost. Each
    index in ``of`` stands once; locations that aren't mentioned count as not reviewed.
    """
    job, report = await run_in_threadpool(_report, services, caller, id)
    sent = validate(NewFeedback, await read_json(request))
    return await run_in_threadpool(_add, services, caller, audit, job, report, sent)


@router.get("/v1/jobs/{id}/feedback", responses=documented(*_GENERAL, 404))
def show_feedback(services: GatewayServices, caller: ReadCaller, audit: Audit, id: str) -> FeedbackVersions:
    """Fetch every version of the feedback on a job's report, the oldest first."""
    services.find_job(id, caller)
    audit.note(caller, "feedback.read", id)
    found = services.ledger.feedback(id)
    return FeedbackVersions(items=[feedback_resource(id, each) for each in found.versions] if found else [])


@router.get("/v1/feedback", responses=documented(400, *_GENERAL))
def list_feedback(
    services: GatewayServices,
    caller: ReadCaller,
    audit: Audit,
    request: Request,
    response: Response,
    label: Annotated[str | None, Query(max_length=100, description="A finding that it mentions")] = None,
    verdict: Verdict | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Cursor = None,
) -> FeedbackList:
    """List the newest feedback of each reviewed job, in the order of the jobs' ids."""
    audit.note(caller, "feedback.read", _ALL)
    page = feedback_page(services.ledger, caller.tenant, FeedbackQuery(label, verdict), limit, cursor)
    link_to_next(request, response, "cursor", page.next_cursor)
    return page


@router.get(
    "/v1/feedback.csv",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {}}}, **documented(*_GENERAL)},
)
def feedback_table(services: GatewayServices, caller: ReadCaller, audit: Audit) -> StreamingResponse:
    """Fetch readers' boxes as the table that phase 2 of training takes (``finetune_phase2 --csv``).

    A row for each box of the newest versions, in fractions of the upright image, which is ``{job}.png``: fetch it
    from ``/v1/jobs/{id}/image.png``. A reviewed image without boxes is a row without term. A row with a term and
    no box names what nobody has reviewed.
    """
    audit.note(caller, "feedback.read", _ALL)
    images = reviewed_images(services.ledger, caller.tenant)
    return StreamingResponse(box_table(images), media_type="text/csv")


@router.get("/v1/feedback.coco.json", responses=documented(*_GENERAL))
def feedback_coco(services: GatewayServices, caller: ReadCaller, audit: Audit) -> CocoFile:
    """Fetch readers' boxes as a COCO file: the images and boxes of ``feedback.csv``, in pixels."""
    audit.note(caller, "feedback.read", _ALL)
    return coco_file(reviewed_images(services.ledger, caller.tenant))


@router.get("/v1/feedback/agreement", responses=documented(*_GENERAL))
def feedback_agreement(services: GatewayServices, caller: ReadCaller, audit: Audit) -> FeedbackAgreement:
    """Count how far readers agree with reports, as a whole and for each finding."""
    audit.note(caller, "feedback.read", _ALL)
    return agreement(services.ledger, caller.tenant)


def _report(services: Services, caller: Caller, id: str) -> tuple[JobRecord, Report]:
    job, outcome = services.find_job(id, caller)
    if outcome is None or outcome.report is None:
        state = services.ledger.state(id, outcome)
        raise Problem(409, "no-report", f"The job has no report: it is {state}.")
    return job, outcome.report


def _add(
    services: Services, caller: Caller, audit: RequestAudit, job: JobRecord, report: Report, sent: NewFeedback
) -> Feedback:
    new = feedback_version(services.ledger, report, sent)
    audit.note(caller, "feedback.write", job.id)
    _write(services, job, new)
    return feedback_resource(job.id, new)


def _write(services: Services, job: JobRecord, new: FeedbackVersion) -> None:
    try:
        add_feedback(services.ledger, job, new)
    except FeedbackConflict as error:
        detail = (
            f"The newest version is {error.newest}. Look at it, and send this feedback again with "
            f'"after": {error.newest}.'
        )
        raise Problem(409, "feedback-conflict", detail) from None
    except TooManyVersions:
        detail = f"This job has {MOST_VERSIONS} versions of feedback, as many as a job may have."
        raise Problem(409, "too-many-versions", detail) from None
    except BeingErased:
        raise Problem(409, "erased", "The job is being erased. Nothing of this feedback is kept.") from None
