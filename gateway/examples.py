"""One example of each answer, for the OpenAPI document: made of the models, so that it can't stray from them."""

import json
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from gateway.renderings.text import as_text
from gateway.resources import Batch, BatchItem, BatchItems, BatchList, Erased, Job, JobList
from gateway.uploads import Upload
from gateway.webhooks import DeliveryLine, DeliveryList, Pong, Secret
from shared.findings import BY_LABEL
from shared.ledger.records import JobState
from shared.report import Box, ImageFacts, Location, ModelProvenance, Report, Timings, TokenCounts

_AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
_JOB, _BATCH = "0b8e4a6e-6c5b-4f0e-9c07-5f1d7c1e9a42", "6d4fca43-8f0c-47c5-a5f1-9f6f2b7f3c11"
_EVENT = "c0a7b4b4-9d2f-5c0b-8a6f-2f4f6c3d1e90"
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
            laterality="left",
            box=_BOX,
            box_normalised=Box(**{name: round(value / _SIDE, 6) for name, value in _BOX.model_dump().items()}),
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

_BEGUN = Job(
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
_ENDED = _BEGUN.model_copy(
    update={
        "state": JobState.SUCCEEDED,
        "started_at": _AT + timedelta(seconds=1),
        "finished_at": _AT + timedelta(seconds=4),
        "expires_at": None,
        "ahead": None,
        "attempts": 1,
    }
)
_SOME = Batch(
    id=_BATCH,
    state="running",
    priority="backlog",
    submitted_at=_AT,
    total=1200,
    counts={"succeeded": 340, "failed": 2, "open": 858},
    per_minute=41.5,
    seconds_left=1240.5,
)
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
_ITEM = BatchItem(row=0, name="2019/0001", id=_JOB, state=JobState.SUCCEEDED)

ACCEPTED: dict[type[BaseModel], BaseModel] = {Job: _BEGUN, Batch: _SOME, DeliveryLine: _SENT}
"""Where they differ from those of a success: what is accepted, and hasn't ended."""

ANSWERS: dict[type[BaseModel], BaseModel] = {
    Job: _ENDED.model_copy(update={"report": REPORT}),
    JobList: JobList(items=[_ENDED], next_cursor=f"1772600767000000-{_JOB}", complete=True),
    Erased: Erased(erased=12),
    Report: REPORT,
    Upload: Upload(
        id="6f6f1a52-5b54-4c8a-9a35-0d8e0c6ad5a1",
        url="https://store.example.org/xray/uploads/6f6f1a52-5b54-4c8a-9a35-0d8e0c6ad5a1?X-Amz-Signature=…",
        expires_at=_AT + timedelta(hours=1),
    ),
    Batch: _SOME,
    BatchList: BatchList(items=[_SOME], next_cursor=None),
    BatchItems: BatchItems(items=[_ITEM], next_row=1),
    Secret: Secret(secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    Pong: Pong(status=204, why="", ok=True),
    DeliveryLine: _SENT,
    DeliveryList: DeliveryList(items=[_SENT], next_cursor=None),
}

TEXT = as_text(REPORT)
EVENTS = """id: 1
event: state
data: {"state":"running"}

id: 2
event: text
data: {"offset":0,"text":"There is"}

"""
_FAILURE = {"code": "no-image", "message": "There is no image where the manifest says."}
_RESULT = {"row": 0, "name": "2019/0001", "id": _JOB, "state": "failed", "metadata": {}, "report": None}
RESULTS = json.dumps({**_RESULT, "failure": _FAILURE}) + "\n"

PARAMETERS = {
    "id": _JOB,
    "idempotency-key": "8d3f1c1e-3b2f-4a55-9a1e-0c6f2b1a7d10",
    "prefer": "wait=30",
    "accept": "application/pdf",
    "last-event-id": "2",
    "cursor": f"1772600767000000-{_JOB}",
    "study": "baseline",
    "patient": "P-0017",
    "job": _JOB,
    "submitted_after": "2026-03-04T00:00:00Z",
    "submitted_before": "2026-03-05T00:00:00Z",
    "longest_side": 512,
    "tenant": "default",
    "expires": 1772604367,
    "signature": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
}
"""By name, where the schema alone doesn't say what is meant."""
