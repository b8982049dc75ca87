"""One example of each answer for the OpenAPI document, made of the models so that it can't drift from them."""

import json
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from emx_gateway.feedback_schemas import (
    CocoAnnotation,
    CocoCategory,
    CocoFile,
    CocoImage,
    Feedback,
    FeedbackAgreement,
    FeedbackList,
    FeedbackSummary,
    FeedbackVersions,
    FindingAgreement,
    ReviewedLocation,
)
from emx_gateway.renderings.text import as_text
from emx_gateway.schemas import (
    Batch,
    BatchItem,
    BatchItems,
    BatchList,
    DeliveryLine,
    DeliveryList,
    Erased,
    Job,
    JobList,
    ListedJob,
    Pong,
    Redelivered,
    Secret,
    Upload,
)
from emx_gateway.services.representations import job_summary
from emx_shared.contracts.findings import BY_LABEL
from emx_shared.contracts.report import Box, ImageFacts, Location, ModelProvenance, Report, Timings, TokenCounts
from emx_shared.contracts.states import BatchState, JobState
from emx_shared.contracts.times import rfc3339

_AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
_JOB, _BATCH = "0b8e4a6e-6c5b-4f0e-9c07-5f1d7c1e9a42", "6d4fca43-8f0c-47c5-a5f1-9f6f2b7f3c11"
_RETRY = "a1d5c1d2-0f0a-4b7e-8a56-3c2f7be3f2b4"
_EVENT, _UPLOAD = "c0a7b4b4-9d2f-5c0b-8a6f-2f4f6c3d1e90", "6f6f1a52-5b54-4c8a-9a35-0d8e0c6ad5a1"
_SIDE = 1024
_BOX = Box(xmin=614.4, ymin=583.68, xmax=911.36, ymax=891.0)
_EFFUSION = BY_LABEL["pleural effusion"]

REPORT = Report(
    findings="There is a left pleural effusion. The heart is of normal size.",
    impression="Left pleural effusion.",
    locations=(
        Location(
            label=_EFFUSION.label,
            code=_EFFUSION.code,
            snomed_ct=_EFFUSION.snomed_ct,
            radlex=_EFFUSION.radlex,
            laterality="left",
            box=_BOX,
            box_normalised=Box(**{name: round(value / _SIDE, 6) for name, value in _BOX.model_dump().items()}),
            box_stored=_BOX,
            colour=_EFFUSION.colour,
            probability=0.91,
            evidence="There is a left pleural effusion.",
        ),
    ),
    image=ImageFacts(
        width=_SIDE,
        height=_SIDE,
        media_type="application/dicom",
        sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        pixel_spacing=(0.35, 0.35),
    ),
    model=ModelProvenance(
        name="google/medgemma-4b-it",
        revision="efe6cc02361759b6bd501c654ddb7c9356ec509d",
        adapter="explainmyxray/reports",
        quantisation="int4",
        engine="emx",
        dialect="loc",
        demo=False,
    ),
    timings=Timings(decode=0.02, prefill=0.61, generate=2.4),
    tokens=TokenCounts(prompt=312, generated=96),
    created_at=_AT + timedelta(seconds=4),
)

_QUEUED = Job(
    id=_JOB,
    state=JobState.QUEUED,
    priority="routine",
    submitted_at=_AT,
    expires_at=_AT + timedelta(days=1),
    ahead=3,
    metadata={"site": "north"},
    study="baseline",
    patient="P-0017",
)
_ENDED = _QUEUED.model_copy(
    update={
        "state": JobState.SUCCEEDED,
        "started_at": _AT + timedelta(seconds=1),
        "finished_at": _AT + timedelta(seconds=4),
        "expires_at": None,
        "ahead": None,
        "attempts": 1,
    }
)
_READ = _ENDED.model_copy(update={"report": REPORT})
_LISTED = ListedJob(**vars(_ENDED), summary=job_summary(REPORT))
_FOUND = REPORT.locations[0]
_FEEDBACK = Feedback(
    job=_JOB,
    version=1,
    reviewed_at=_AT + timedelta(hours=2),
    reviewer="AB",
    verdict="agree",
    comment="Small, as on the last image.",
    locations=[
        ReviewedLocation(
            of=0,
            verdict="agreed",
            label=_FOUND.label,
            code=_FOUND.code,
            laterality=_FOUND.laterality,
            box=_FOUND.box,
            box_normalised=_FOUND.box_normalised,
            colour=_FOUND.colour,
        )
    ],
)
_REVIEWED = _READ.model_copy(
    update={
        "feedback": FeedbackSummary(
            version=1, reviewed_at=_FEEDBACK.reviewed_at, reviewer="AB", verdict=_FEEDBACK.verdict
        )
    }
)
_WIDE, _HIGH = round(_BOX.xmax - _BOX.xmin, 2), round(_BOX.ymax - _BOX.ymin, 2)
_SOME = Batch(
    id=_BATCH,
    state=BatchState.RUNNING,
    priority="backlog",
    submitted_at=_AT,
    total=1200,
    counts={"succeeded": 340, "failed": 2, "open": 858},
    per_minute=41.5,
    seconds_left=1240.5,
)
_NONE_ENDED = {"counts": {"open": 1200}, "per_minute": None, "seconds_left": None}
_CANCELLED = {
    "state": BatchState.CANCELLED,
    "finished_at": _AT + timedelta(minutes=8),
    "counts": {"succeeded": 340, "failed": 2, "cancelled": 858, "open": 0},
    "seconds_left": None,
}
_SENT = DeliveryLine(
    id=_EVENT,
    message=_EVENT,
    job=_JOB,
    url="https://ris.example.org/hooks/xray",
    event="job.succeeded",
    status="delivered",
    tries=1,
    created_at=_AT + timedelta(seconds=4),
    next_try_at=None,
    last_answer="204",
)
_OWED = _SENT.model_copy(
    update={"status": "owed", "tries": 0, "next_try_at": _AT + timedelta(minutes=9), "last_answer": ""}
)
_ITEM = BatchItem(row=0, name="2019/0001", id=_JOB, state=JobState.SUCCEEDED)

ANSWERS: dict[type[BaseModel], BaseModel] = {
    Job: _READ,
    JobList: JobList(items=[_LISTED], next_cursor=f"1772600767000000-{_JOB}", complete=True),
    Erased: Erased(erased=12),
    Report: REPORT,
    Upload: Upload(
        id=_UPLOAD,
        url=f"https://store.example.org/xray/uploads/{_UPLOAD}?X-Amz-Signature=…",
        expires_at=_AT + timedelta(hours=1),
        max_bytes=64 * 2**20,
    ),
    Batch: _SOME,
    BatchList: BatchList(items=[_SOME], next_cursor=None),
    BatchItems: BatchItems(items=[_ITEM], next_row=1),
    Secret: Secret(secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    Pong: Pong(status=204, why="", ok=True),
    DeliveryLine: _SENT,
    Redelivered: Redelivered(redelivered=42, next_cursor=None),
    DeliveryList: DeliveryList(items=[_SENT], next_cursor=None),
    Feedback: _FEEDBACK,
    FeedbackVersions: FeedbackVersions(items=[_FEEDBACK]),
    FeedbackList: FeedbackList(items=[_FEEDBACK], next_cursor=_JOB),
    FeedbackAgreement: FeedbackAgreement(
        jobs=40,
        agree=31,
        disagree=9,
        findings=[FindingAgreement(label=_EFFUSION.label, agreed=18, corrected=4, rejected=2, added=3)],
    ),
    CocoFile: CocoFile(
        images=[
            CocoImage(id=1, file_name=f"{_JOB}.png", width=_SIDE, height=_SIDE, not_exhaustive_category_ids=[])
        ],
        annotations=[
            CocoAnnotation(
                id=1,
                image_id=1,
                category_id=1 + list(BY_LABEL).index(_EFFUSION.label),
                bbox=(_BOX.xmin, _BOX.ymin, _WIDE, _HIGH),
                area=round(_WIDE * _HIGH, 2),
                laterality="left",
            )
        ],
        categories=[CocoCategory(id=1 + list(BY_LABEL).index(_EFFUSION.label), name=_EFFUSION.label)],
    ),
}

ANSWERS_OF: dict[tuple[str, str], BaseModel] = {
    ("submit_job", "202"): _QUEUED,
    ("cancel_job", "200"): _QUEUED.model_copy(
        update={
            "state": JobState.CANCELLED,
            "finished_at": _AT + timedelta(seconds=2),
            "expires_at": None,
            "ahead": None,
        }
    ),
    ("create_batch", "202"): _SOME.model_copy(update=_NONE_ENDED),
    ("pause_batch", "200"): _SOME.model_copy(update={"state": BatchState.PAUSED, "seconds_left": None}),
    ("cancel_batch", "200"): _SOME.model_copy(update=_CANCELLED),
    ("erase_batch", "202"): _SOME.model_copy(update=_CANCELLED),
    ("retry_batch", "202"): _SOME.model_copy(
        update={**_NONE_ENDED, "id": _RETRY, "total": 2, "counts": {"open": 2}, "retry_of": _BATCH}
    ),
    ("redeliver", "202"): _OWED,
    ("show_report_as_accepted", "200"): REPORT,
    ("show_job", "200"): _REVIEWED,
}
"""By operation and status, where the answer differs from the others of its kind, or its schema isn't given."""

TEXT = as_text(REPORT)


def _events(*sent: tuple[str, str, str]) -> str:
    return "".join(f"id: {id}\nevent: {name}\ndata: {data}\n\n" for id, name, data in sent)


EVENTS = _events(
    ("0-0:running", "state", '{"state":"running"}'),
    ("1772600769000-0:running", "text", '{"offset":0,"text":"There is a left"}'),
    ("1772600770000-0:running", "text", '{"offset":15,"text":" pleural effusion."}'),
    ("1772600770000-0:succeeded", "state", '{"state":"succeeded"}'),
    ("1772600770000-0:succeeded", "ended", _READ.model_dump_json()),
)
_EVENT_BODY = {
    "type": "job.succeeded",
    "timestamp": rfc3339(_AT + timedelta(seconds=4)),
    "data": _READ.model_dump(mode="json"),
}
_SIGNED = {
    "content-type": "application/json",
    "user-agent": "ExplainMyXray (Standard Webhooks)",
    "webhook-id": _EVENT,
    "webhook-timestamp": "1772600771",
    "webhook-signature": "v1,dGhpcyBpcyBub3QgYSByZWFsIHNpZ25hdHVyZSBhdCBhbGw=",
}
LISTENED = _events((_EVENT, "job.succeeded", json.dumps({"headers": _SIGNED, "body": json.dumps(_EVENT_BODY)})))
"""What a listener receives: each event as a webhook would bring it."""

_FAILURE = {"code": "no-image", "message": "There is no image where the manifest says."}
_RESULT = {"row": 0, "name": "2019/0001", "id": _JOB, "state": "succeeded", "metadata": {"arm": "control"}}
RESULTS = "".join(
    json.dumps(line, separators=(",", ":")) + "\n"
    for line in (
        {**_RESULT, "report": REPORT.model_dump(mode="json"), "failure": None, "cursor": "1772600771000000-0"},
        {**_RESULT, "row": 1, "name": "2019/0002", "id": _EVENT, "state": "failed", "report": None}
        | {"failure": _FAILURE, "cursor": "1772600772000000-1"},
    )
)

BOX_TABLE = (
    "image,term,xmin,ymin,xmax,ymax,patient\r\n"
    f"{_JOB}.png,pleural effusion left,0.6,0.57,0.89,0.870117,49e0b1b9b1f5\r\n"
    f"{_RETRY}.png,,,,,,\r\n"
)
"""An image with a box, and a normal one of a job without patient."""

IDS = {
    "jobs": _JOB,
    "renderings": _JOB,
    "feedback": _JOB,
    "uploads": _UPLOAD,
    "batches": _BATCH,
    "webhooks": _EVENT,
}
"""By tag."""

PARAMETERS = {
    "idempotency-key": "8d3f1c1e-3b2f-4a55-9a1e-0c6f2b1a7d10",
    "prefer": "wait=30",
    "accept": "application/pdf",
    "last-event-id": "1772600769000-0:running",
    "cursor": f"1772600767000000-{_JOB}",
    "after": "1772600771000000-0",
    "study": "baseline",
    "patient": "P-0017",
    "finding": "pleural_effusion",
    "include": ["summary"],
    "label": "pleural effusion",
    "job": _JOB,
    "submitted_after": "2026-03-04T00:00:00Z",
    "submitted_before": "2026-03-05T00:00:00Z",
    "created_after": "2026-03-04T00:00:00Z",
    "created_before": "2026-03-05T00:00:00Z",
    "longest_side": 512,
    "tenant": "default",
    "expires": 1772604367,
    "signature": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
}
"""By name, where the schema alone doesn't say what is meant."""
