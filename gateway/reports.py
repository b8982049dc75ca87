"""/v1/jobs/{id}/…: the report in each of its forms, and the image."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from gateway.access import Caller, Reader
from gateway.audit import Audits
from gateway.problems import Problem, documented
from gateway.renderings.overlay import overlay_png
from gateway.renderings.text import as_text
from gateway.resources import POLL_AFTER
from gateway.service import Service, Services
from shared.ledger.records import Request as JobRequest
from shared.report import Report
from shared.store import NotFound

router = APIRouter(tags=["renderings"])
_PRIVATE = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
_ERRORS = documented(401, 403, 404, 409, 422, 429, 503)


@router.get("/v1/jobs/{id}/report.json", responses=_ERRORS)
def show_report(service: Services, caller: Reader, audit: Audits, id: str) -> Report:
    """The report alone; its schema is at ``/v1/schema/report``."""
    return _report(service, caller, audit, id)[1]


@router.get("/v1/jobs/{id}/report.txt", response_class=PlainTextResponse, responses=_ERRORS)
def show_text(service: Services, caller: Reader, audit: Audits, id: str) -> PlainTextResponse:
    """The report as plain text."""
    return PlainTextResponse(as_text(_report(service, caller, audit, id)[1]), headers=_PRIVATE)


@router.get(
    "/v1/jobs/{id}/overlay.png",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, **_ERRORS},
)
def show_overlay(service: Services, caller: Reader, audit: Audits, id: str) -> Response:
    """The image with a labelled, coloured box for every abnormality."""
    request, report = _report(service, caller, audit, id)
    image = service.validate(_input(service, request)).image
    return Response(overlay_png(image, report), media_type="image/png", headers=_PRIVATE)


@router.get(
    "/v1/jobs/{id}/input",
    response_class=Response,
    responses={200: {"content": {"image/png": {}, "image/jpeg": {}}}, **documented(401, 403, 404, 429, 503)},
)
def show_input(service: Services, caller: Reader, audit: Audits, id: str) -> Response:
    """The image as it was received."""
    request, _ = service.find(id, caller)
    audit.note(caller, "image.read", id)
    return Response(_input(service, request), media_type=request.media_type, headers=_PRIVATE)


@router.get("/v1/schema/report")
def report_schema() -> JSONResponse:
    """JSON Schema of the report."""
    return JSONResponse(Report.model_json_schema(), media_type="application/schema+json")


def _report(service: Service, caller: Caller, audit: Audits, id: str) -> tuple[JobRequest, Report]:
    request, outcome = service.find(id, caller)
    if outcome is None or outcome.report is None:
        state = service.ledger.state(id, outcome)
        raise Problem(
            409, "no-report", f"The job has no report: it is {state}.", POLL_AFTER if not outcome else {}
        )
    audit.note(caller, "report.read", id)
    return request, outcome.report


def _input(service: Service, request: JobRequest) -> bytes:
    try:
        return service.ledger.input(request)
    except NotFound:
        raise Problem(404, "no-input", "The image is no longer kept.") from None
