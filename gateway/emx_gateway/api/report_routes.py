"""/v1/jobs/{id}/…: the report in each of its forms, and the image."""

from enum import IntEnum
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.concurrency import run_in_threadpool

from emx_gateway.api.dependencies import Audit, GatewayServices, ReadCaller
from emx_gateway.auth.audit import RequestAudit
from emx_gateway.auth.authenticator import Caller
from emx_gateway.http.entity_tags import EntityTags
from emx_gateway.http.negotiation import preferred
from emx_gateway.http.problems import Problem, documented
from emx_gateway.renderings.html import CONTENT_SECURITY_POLICY
from emx_gateway.renderings.phrases import review
from emx_gateway.renderings.pictures import picture_of_report
from emx_gateway.renderings.text import as_text
from emx_gateway.schemas import POLL_AFTER
from emx_gateway.services.services import Services
from emx_shared.contracts.report import Report
from emx_shared.imaging import MEDIA_TYPES, as_png
from emx_shared.ledger.records import FeedbackVersion, JobRecord
from emx_shared.store import NoSuchObject

KINDS = {
    "json": "application/json",
    "txt": "text/plain",
    "html": "text/html",
    "pdf": "application/pdf",
    "png": "image/png",
}
"""Media types of the forms a report has, by the ending of its address."""

_WITH_REVIEW = ("txt", "html", "pdf")
"""Forms that say what a reader said of the report."""


class Depth(IntEnum):
    """Bits of a pixel."""

    EIGHT = 8
    SIXTEEN = 16


router = APIRouter(tags=["renderings"])
Tags = Annotated[EntityTags, Depends()]
_UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "What `If-None-Match` names is still the same"}
}
_ERRORS = documented(401, 403, 404, 409, 422, 429, 503) | _UNCHANGED


@router.get(
    "/v1/jobs/{id}/report",
    responses={200: {"content": {kind: {} for kind in KINDS.values()}}, **_ERRORS, **documented(406)},
)
async def show_report_as_accepted(
    services: GatewayServices,
    caller: ReadCaller,
    audit: Audit,
    tags: Tags,
    id: str,
    accept: Annotated[str, Header()] = "*/*",
) -> Response:
    """Fetch the report in the form that ``Accept`` asks for: JSON, text, HTML, PDF, or a PNG with boxes."""
    kind = preferred(accept, KINDS)
    if kind is None:
        raise Problem(406, "not-acceptable", f"The report is available as {', '.join(KINDS.values())}.")
    answer = await _rendered(services, caller, audit, tags, id, kind)
    answer.headers["Vary"] = "Accept"
    return answer


@router.get("/v1/jobs/{id}/report.json", response_model=Report, responses=_ERRORS)
async def show_report(
    services: GatewayServices, caller: ReadCaller, audit: Audit, tags: Tags, id: str
) -> Response:
    """Fetch the report alone; its schema is at ``/v1/schema/report``."""
    return await _rendered(services, caller, audit, tags, id, "json")


@router.get("/v1/jobs/{id}/report.txt", response_class=PlainTextResponse, responses=_ERRORS)
async def show_text(services: GatewayServices, caller: ReadCaller, audit: Audit, tags: Tags, id: str) -> Response:
    """Fetch the report as plain text."""
    return await _rendered(services, caller, audit, tags, id, "txt")


@router.get("/v1/jobs/{id}/report.html", response_class=HTMLResponse, responses=_ERRORS)
async def show_html(services: GatewayServices, caller: ReadCaller, audit: Audit, tags: Tags, id: str) -> Response:
    """Fetch the report with its picture as one self-contained HTML file, to keep or print."""
    return await _rendered(services, caller, audit, tags, id, "html")


@router.get(
    "/v1/jobs/{id}/report.pdf",
    response_class=Response,
    responses={200: {"content": {KINDS["pdf"]: {}}}, **_ERRORS},
)
async def show_pdf(services: GatewayServices, caller: ReadCaller, audit: Audit, tags: Tags, id: str) -> Response:
    """Fetch the report with its picture as a PDF for A4."""
    return await _rendered(services, caller, audit, tags, id, "pdf")


@router.get(
    "/v1/jobs/{id}/overlay.png",
    response_class=Response,
    responses={200: {"content": {KINDS["png"]: {}}}, **_ERRORS},
)
async def show_overlay(
    services: GatewayServices,
    caller: ReadCaller,
    audit: Audit,
    tags: Tags,
    id: str,
    longest_side: Annotated[
        int | None, Query(ge=32, le=8192, description="Pixels of the longer side; the image's own by default")
    ] = None,
) -> Response:
    """Fetch the image with a labelled, coloured box for every abnormality."""
    return await _rendered(services, caller, audit, tags, id, "png", longest_side)


@router.get(
    "/v1/jobs/{id}/image.png",
    response_class=Response,
    responses={200: {"content": {KINDS["png"]: {}}}, **documented(401, 403, 404, 422, 429, 503), **_UNCHANGED},
)
async def show_image(
    services: GatewayServices,
    caller: ReadCaller,
    audit: Audit,
    tags: Tags,
    id: str,
    depth: Annotated[Depth, Query(description="Bits of a pixel, at most")] = Depth.EIGHT,
) -> Response:
    """Fetch the image as it was read, upright and in gray, for viewers without DICOM or TIFF.

    With 16 bits, a DICOM file, PNG or TIFF of more than 8 keeps its depth, so that a viewer can choose the
    window; others have 8 all the same. Text chunks of the PNG say how it is shown. ``Window`` is ``center width``
    in its samples: grey = (sample - center) / width + 0.5, clipped to 0 to 1, is the 8-bit picture. ``Windows``
    has further windows of the file (``name=center width; …``). ``PixelSpacing`` is in millimetres between rows,
    then columns, by the DICOM element that ``PixelSpacingFrom`` names: PixelSpacing, or ImagerPixelSpacing, which
    is at the detector.
    """
    job, _ = await run_in_threadpool(services.find_job, id, caller)
    audit.note(caller, "image.read", id)
    headers = tags.headers(job.input_sha256, "png", int(depth))
    deep = depth == Depth.SIXTEEN
    picture = await services.decoding.draw(caller.tenant, lambda: _input(services, job), as_png, deep)
    return Response(picture, media_type=KINDS["png"], headers=headers)


@router.get(
    "/v1/jobs/{id}/input",
    response_class=Response,
    responses={
        200: {"content": {kind: {} for kind in MEDIA_TYPES.values()}},
        **documented(401, 403, 404, 422, 429, 503),
        **_UNCHANGED,
    },
)
def show_input(services: GatewayServices, caller: ReadCaller, audit: Audit, tags: Tags, id: str) -> Response:
    """Fetch the image as it was received."""
    job, _ = services.find_job(id, caller)
    audit.note(caller, "image.read", id)
    headers = tags.headers(job.input_sha256)
    return Response(_input(services, job), media_type=job.media_type, headers=headers)


@router.get(
    "/v1/schema/report",
    response_class=Response,
    responses={200: {"content": {"application/schema+json": {"schema": {"type": "object"}}}}},
)
def report_schema() -> JSONResponse:
    """Fetch the JSON Schema of the report."""
    return JSONResponse(Report.model_json_schema(), media_type="application/schema+json")


async def _rendered(
    services: Services,
    caller: Caller,
    audit: RequestAudit,
    tags: EntityTags,
    id: str,
    kind: str,
    longest_side: int | None = None,
) -> Response:
    job, report = await run_in_threadpool(_report, services, caller, audit, id)
    newest = await run_in_threadpool(_newest, services, caller, audit, id) if kind in _WITH_REVIEW else None
    headers = tags.headers(id, kind, longest_side, *((newest.version, newest.reviewed_at) if newest else ()))
    said = review(newest)
    if kind in ("json", "txt"):
        text = report.model_dump_json() if kind == "json" else as_text(report, said)
        return Response(text, media_type=KINDS[kind], headers=headers)
    drawing = partial(picture_of_report, kind, report, said, longest_side)
    picture = await services.decoding.draw(caller.tenant, lambda: _input(services, job), drawing)
    policy = {"Content-Security-Policy": CONTENT_SECURITY_POLICY} if kind == "html" else {}
    return Response(picture, media_type=KINDS[kind], headers=headers | policy)


def _report(services: Services, caller: Caller, audit: RequestAudit, id: str) -> tuple[JobRecord, Report]:
    job, outcome = services.find_job(id, caller)
    if outcome is None or outcome.report is None:
        state = services.ledger.state(id, outcome)
        raise Problem(
            409, "no-report", f"The job has no report: it is {state}.", POLL_AFTER if not outcome else {}
        )
    audit.note(caller, "report.read", id)
    return job, outcome.report


def _newest(services: Services, caller: Caller, audit: RequestAudit, id: str) -> FeedbackVersion | None:
    """Return the newest feedback; None where there is none, or it can't be read."""
    feedback = services.ledger.if_readable(services.ledger.feedback, id)
    if feedback:
        audit.note(caller, "feedback.read", id)
    return feedback.newest if feedback else None


def _input(services: Services, job: JobRecord) -> bytes:
    try:
        return services.ledger.input(job)
    except NoSuchObject:
        raise Problem(404, "no-input", "The image is no longer stored.") from None
