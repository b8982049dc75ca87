"""The shapes of the gateway's requests and answers. Their texts are the API's documentation."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from emx_gateway.feedback_schemas import FeedbackSummary
from emx_shared.contracts.findings import Laterality
from emx_shared.contracts.report import DISCLAIMER, Box, Report
from emx_shared.contracts.states import BatchState, JobState
from emx_shared.ledger.records import DeliveryStatus, Failure, Priority

WEEK = 7 * 24 * 3600
"""Seconds."""

POLL_AFTER = {"Retry-After": "1"}
"""Headers of an answer about a job that hasn't ended."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Indication = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Metadata = Annotated[
    dict[Annotated[str, StringConstraints(max_length=40)], Annotated[str, StringConstraints(max_length=500)]],
    Field(max_length=50),
]


_PART = "[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}"
_IMAGE = re.compile(rf"(upload:[0-9a-f-]{{36}}|job:[0-9a-f-]{{36}}|import:{_PART}(/{_PART})*)")
_LONGEST_IMAGE = 500
"""Characters; a key of S3 has 1,024 bytes at most."""


def links(*operations: str) -> dict[str, Any]:
    """Return OpenAPI links to operations that take the id of what was answered."""
    return {name: {"operationId": name, "parameters": {"id": "$response.body#/id"}} for name in operations}


class JobOptions(BaseModel):
    """What a client may say of an image beside it."""

    model_config = ConfigDict(extra="forbid")

    priority: Priority = Field(default="routine", description="stat is read first, backlog last")
    webhook_url: str | None = Field(
        default=None,
        max_length=2048,
        description="Called when the job ends",
        examples=["https://ris.example.org/hooks/xray"],
    )
    metadata: Metadata = Field(
        default_factory=dict, description="Your own data, returned unchanged. No patient data, please"
    )
    study: Name | None = Field(
        default=None,
        description="Your name for what belongs together, to list and erase by",
        examples=["baseline"],
    )
    patient: Name | None = Field(
        default=None, description="Your pseudonym for the patient, to list and erase by", examples=["P-0017"]
    )
    indication: Indication | None = Field(
        default=None,
        description="Clinical context, for models that were trained to take it",
        examples=["Cough for two weeks"],
    )
    expires_in: Annotated[int, Field(ge=1, le=WEEK)] | None = Field(
        default=None,
        description="Seconds after which the report is no longer wanted. Default: one day",
        examples=[3600],
    )


class UploadedJob(JobOptions):
    """A submission whose image was uploaded before (``POST /v1/uploads``)."""

    upload: str = Field(description="The upload's id")


class BatchOptions(BaseModel):
    """What holds for all items of a batch."""

    model_config = ConfigDict(extra="forbid")

    priority: Priority = Field(default="backlog")
    webhook_url: str | None = Field(
        default=None,
        max_length=2048,
        description="Called once, when all items have ended",
        examples=["https://ris.example.org/hooks/batch"],
    )
    item_webhook_url: str | None = Field(
        default=None,
        max_length=2048,
        description="Called for each item",
        examples=["https://ris.example.org/hooks/xray"],
    )
    paused: bool = Field(
        default=False,
        description="Read nothing until the batch is resumed, so that its uploads may still be on their way",
    )


class ManifestRow(BaseModel):
    """One image of a manifest."""

    model_config = ConfigDict(extra="forbid")

    image: str = Field(
        max_length=_LONGEST_IMAGE,
        description="upload:ID, import:PATH or job:ID. Several rows of a batch may name the same image",
        examples=["import:2019/0001.dcm"],
    )
    name: Name | None = Field(default=None, description="Your own name for the row, returned with its result")
    metadata: Metadata = Field(default_factory=dict)
    study: Name | None = None
    patient: Name | None = None
    indication: Indication | None = None

    @field_validator("image")
    @classmethod
    def _known(cls, image: str) -> str:
        if not _IMAGE.fullmatch(image):
            raise ValueError(
                "must be upload:ID, job:ID, or import:PATH; parts of a path have up to 200 of A–Z, a–z, 0–9, ., _ "
                "and -, and don't begin with a dot"
            )
        return image


class Job(BaseModel):
    """One image on its way to a report."""

    id: str
    state: JobState
    priority: Priority
    submitted_at: datetime
    started_at: datetime | None = Field(default=None, description="When a worker last started to read it")
    finished_at: datetime | None = None
    expires_at: datetime | None = Field(default=None, description="After this the image is not read any more")
    ahead: int | None = Field(default=None, description="Jobs of the same priority that come before this one")
    attempts: int = Field(default=0, description="How many workers started to read it")
    metadata: dict[str, str] = Field(default_factory=dict)
    study: str | None = None
    patient: str | None = None
    batch: str | None = Field(default=None, description="The batch that it is an item of")
    row: int | None = Field(default=None, description="Number of its row in that batch, from 0")
    name: str | None = Field(default=None, description="Your own name for that row")
    report: Report | None = None
    failure: Failure | None = Field(default=None, description="Why the job failed")
    feedback: FeedbackSummary | None = Field(
        default=None, description="The newest feedback of readers; null in events, webhooks and plain lists"
    )
    disclaimer: str = DISCLAIMER


class FindingSummary(BaseModel):
    """A finding of a listed job."""

    label: str = Field(description="Finding, in the words of the finding vocabulary")
    code: str = Field(description="The label as an identifier, such as pleural_effusion")
    laterality: Laterality | None = Field(description="The patient's side")
    colour: str = Field(description="#rrggbb, the finding's colour in every picture")
    box_normalised: Box = Field(description="Fractions of the image's width and height, 0 to 1")
    probability: float | None = Field(description="What the model gave to the words that name the finding")


class JobSummary(BaseModel):
    """What a listed job's report says in brief."""

    findings: list[FindingSummary]
    abstained: bool = Field(description="The model declined to read the image; no findings then mean nothing")
    warnings: int = Field(description="Number of the report's warnings")
    width: int = Field(description="Pixels of the image, turned upright")
    height: int
    demo: bool = Field(description="Written by the demo model, which knows computer-drawn phantoms only")


class ListedJob(Job):
    """A job of a list, without its report."""

    summary: JobSummary | None = Field(
        default=None, description="The report in brief, with `include=summary`; null without a report"
    )


class JobList(BaseModel):
    """A page of jobs."""

    items: list[ListedJob]
    unreadable: list[str] = Field(
        default=[], description="Ids of jobs that this server can't show: damaged, or written by a newer version"
    )
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one")
    complete: bool = Field(description="False for a while after Redis was lost: older jobs are being listed again")


class Erased(BaseModel):
    """How much was erased."""

    erased: int = Field(description="Jobs whose image and report are gone")


class BatchItem(BaseModel):
    """A row of a batch."""

    row: int
    name: str | None = Field(description="Your own name for the row")
    id: str = Field(description="Id of the row's job, which exists once the row was submitted")
    state: JobState


class BatchItems(BaseModel):
    """A page of a batch's rows."""

    items: list[BatchItem]
    next_row: int | None = Field(description="`row` of the next page; null on the last one")


class BatchResult(BaseModel):
    """A row of a batch that has ended, with its report: a line of `results.ndjson`."""

    row: int
    name: str | None = Field(default=None, description="Your own name for the row")
    id: str = Field(description="Id of the row's job")
    state: JobState
    metadata: dict[str, str] = Field(default_factory=dict)
    report: Report | None = None
    failure: Failure | None = None
    cursor: str = Field(description="`after` of a stream that resumes behind this line")


class Batch(BaseModel):
    """Many images in one submission."""

    id: str
    state: BatchState = Field(
        description="completed: every item has ended, each in its own state; look at the counts"
    )
    priority: Priority
    submitted_at: datetime
    finished_at: datetime | None = None
    total: int
    counts: dict[str, int] = Field(description="Items by state; open are those that haven't ended")
    per_minute: float | None = Field(
        description="Items read each minute, lately; of a batch that has ended, on the whole"
    )
    seconds_left: float | None = Field(
        description="Estimate until all have ended, at this rate. Null before the first was read, and while paused"
    )
    retry_of: str | None = Field(default=None, description="The batch whose failed items these are")
    disclaimer: str = DISCLAIMER


class BatchList(BaseModel):
    """A page of batches."""

    items: list[Batch]
    unreadable: list[str] = Field(
        default=[],
        description="Ids of batches that this server can't show: damaged, or written by a newer version",
    )
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one")


class Upload(BaseModel):
    """Where to upload an image: one ``PUT`` with its bytes as the body."""

    id: str = Field(description="To be named in the submission")
    url: str = Field(description="Needs no API key")
    method: Literal["PUT"] = "PUT"
    expires_at: datetime
    received: bool = Field(default=False, description="The image of a repeated idempotency key has arrived")
    max_bytes: int = Field(description="Bytes that are accepted at most")


class Secret(BaseModel):
    """A signing secret, shown this once."""

    secret: str = Field(description="whsec_…, shown this once")
    former_valid_hours: int = Field(
        default=24, description="For so long events are signed with the former secret too"
    )


class Ping(BaseModel):
    """An endpoint to try."""

    url: str = Field(max_length=2048)


class Pong(BaseModel):
    """How an endpoint answered."""

    status: int | None = Field(description="HTTP status; null if there was no answer")
    why: str = Field(description="Why there was no answer")
    ok: bool


class DeliveryLine(BaseModel):
    """One event on its way to one endpoint."""

    id: str
    message: str = Field(description="The header webhook-id: the same when an event is sent again")
    job: str
    url: str
    event: str
    status: DeliveryStatus
    tries: int
    created_at: datetime
    next_try_at: datetime | None
    last_answer: str = Field(description="HTTP status of the last try, or why there was none")


class Redelivered(BaseModel):
    """How many events are sent again."""

    redelivered: int
    unreadable: list[str] = Field(
        default=[], description="Ids of deliveries that this server can't read: damaged, or of a newer version"
    )
    next_cursor: str | None = Field(description="`cursor` of the next request; null once the range is done")


class DeliveryList(BaseModel):
    """A page of the delivery log."""

    items: list[DeliveryLine]
    unreadable: list[str] = Field(
        default=[],
        description="Ids of deliveries that this server can't show: damaged, or written by a newer version",
    )
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one")
