"""What the server returns and accepts. Fields that a newer server adds are ignored."""

from datetime import datetime
from typing import Literal, TypedDict, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from emx_shared.contracts.findings import Laterality
from emx_shared.contracts.report import Box, Report

Priority = Literal["stat", "routine", "backlog"]
"""``stat`` is read first, ``backlog`` last."""

RenderingFormat = Literal["json", "txt", "html", "pdf", "png"]
ManifestType = Literal["text/csv", "application/x-ndjson"]
DeliveryStatus = Literal["owed", "delivered", "undelivered"]
ItemState = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]


class Resource(BaseModel):
    """A value from the server. It can't be changed, and ignores unknown fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")


M = TypeVar("M", bound=BaseModel)


def read_json(model: type[M], content: bytes) -> M:
    """Parse JSON, ignoring unknown fields on every level, also in reports, which are strict elsewhere.

    Raises:
        ValueError: The content isn't JSON, or doesn't fit the model.
    """
    return model.model_validate_json(content, extra="ignore")


class Failure(Resource):
    """Why a job failed.

    Attributes:
        code: Stable name for programs.
        message: A sentence for people, without anything about the patient.
    """

    code: str
    message: str


class FindingSummary(Resource):
    """A finding of a listed job.

    Attributes:
        label: The finding, in the words of the finding vocabulary.
        code: The label as an identifier, such as ``pleural_effusion``.
        laterality: The patient's side, left or right.
        colour: ``#rrggbb``, the finding's colour in every picture.
        box_normalised: Where it is, as fractions of the image's width and height.
        probability: What the model gave to the words that name the finding; not calibrated on patients.
    """

    label: str
    code: str
    laterality: Laterality | None = None
    colour: str
    box_normalised: Box
    probability: float | None = None


class JobSummary(Resource):
    """What a listed job's report says in brief.

    Attributes:
        findings: The report's findings, as many as it has boxes.
        abstained: Whether the model declined to read the image; no findings then mean nothing.
        warnings: Number of the report's warnings.
        width: Pixels of the image, turned upright.
        height: Pixels of the image, turned upright.
        demo: Whether the demo model wrote it, which knows computer-drawn phantoms only.
    """

    findings: tuple[FindingSummary, ...]
    abstained: bool
    warnings: int
    width: int
    height: int
    demo: bool = False


class FeedbackSummary(Resource):
    """The newest feedback of readers on a report, in short.

    Attributes:
        version: Its number, from 1.
        reviewed_at: When the server received it.
        reviewer: The reader's initials.
        verdict: agree or disagree.
    """

    version: int
    reviewed_at: datetime
    reviewer: str
    verdict: str


class Job(Resource):
    """One image on its way to a report.

    Attributes:
        id: The job's id.
        state: queued, running, succeeded, failed, cancelled or expired.
        priority: stat, routine or backlog.
        submitted_at: When the server accepted it.
        started_at: When a worker last began to read it.
        finished_at: When it ended; None before.
        expires_at: When it expires unless it has ended.
        ahead: Jobs of the same priority that come before it, while it is queued.
        attempts: Number of workers that began to read it.
        metadata: The caller's own values, returned unchanged.
        study: The caller's name for images that belong together.
        patient: The caller's pseudonym for the patient.
        batch: Id of the batch that it belongs to.
        row: Number of its row in that batch, from 0.
        name: The caller's name for that row.
        report: The report, once the job has succeeded. Jobs in lists come without it.
        failure: Why it failed.
        summary: The report in brief, in lists that include it.
        feedback: The newest feedback of readers, of a single job that was fetched and in lists with summaries;
            ``client.feedback`` has all.
    """

    id: str
    state: str
    priority: str
    submitted_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    ahead: int | None = None
    attempts: int = 0
    metadata: dict[str, str] = Field(default_factory=dict)
    study: str | None = None
    patient: str | None = None
    batch: str | None = None
    row: int | None = None
    name: str | None = None
    report: Report | None = None
    failure: Failure | None = None
    summary: JobSummary | None = None
    feedback: FeedbackSummary | None = None

    @property
    def ended(self) -> bool:
        """Whether it has succeeded, failed, expired or been cancelled."""
        return self.finished_at is not None


class JobPage(Resource):
    """A page of jobs.

    Attributes:
        items: Jobs without their reports, newest first.
        next_cursor: Start of the next page; None on the last page.
    """

    items: tuple[Job, ...]
    next_cursor: str | None = None


class BatchItem(Resource):
    """A row of a batch and its job.

    Attributes:
        row: Number of the row, from 0.
        name: The caller's name for the row.
        id: Id of the row's job. The job exists once the row has been submitted.
        state: State of the job.
    """

    row: int
    name: str | None = None
    id: str
    state: str


class BatchItems(Resource):
    """A page of a batch's rows.

    Attributes:
        items: The rows in order.
        next_row: First row of the next page; None on the last page.
    """

    items: tuple[BatchItem, ...]
    next_row: int | None = None


class BatchResult(Resource):
    """A row of a batch that has ended, with its report.

    Attributes:
        row: Number of the row, from 0.
        name: The caller's name for the row.
        id: Id of the row's job.
        state: succeeded, failed, cancelled or expired.
        metadata: The caller's own values, returned unchanged.
        report: The report, if the job succeeded.
        failure: Why the job failed.
        cursor: The row's place among the results, from which ``client.batches.results`` resumes.
    """

    row: int
    name: str | None = None
    id: str
    state: str
    metadata: dict[str, str] = Field(default_factory=dict)
    report: Report | None = None
    failure: Failure | None = None
    cursor: str | None = None


class Batch(Resource):
    """Many images in one submission.

    Attributes:
        id: The batch's id.
        state: running, paused, completed (every item has ended, in whatever state: see ``counts``) or cancelled.
        submitted_at: When the server accepted it.
        finished_at: When it ended; None before.
        total: Number of items.
        counts: Number of items by state; ``open`` counts the items that haven't ended.
        per_minute: Items read per minute, lately; of a batch that has ended, on the whole.
        seconds_left: Seconds until all items have ended, at that rate; None before the first was read.
        retry_of: Id of the batch whose failed items these are.
    """

    id: str
    state: str
    submitted_at: datetime
    finished_at: datetime | None = None
    total: int
    counts: dict[str, int] = Field(default_factory=dict)
    per_minute: float | None = None
    seconds_left: float | None = None
    retry_of: str | None = None

    @property
    def ended(self) -> bool:
        """Whether every item has ended."""
        return self.finished_at is not None

    @property
    def done(self) -> int:
        """Number of items that have ended."""
        return self.total - self.counts.get("open", 0)

    @property
    def without_report(self) -> int:
        """Number of items that have ended without a report: failed, cancelled or expired."""
        return self.done - self.counts.get("succeeded", 0)


class BatchPage(Resource):
    """A page of batches.

    Attributes:
        items: Batches, newest first.
        next_cursor: Start of the next page; None on the last page.
    """

    items: tuple[Batch, ...]
    next_cursor: str | None = None


class Upload(Resource):
    """An image in the server's store that can be submitted by its id.

    Attributes:
        id: The upload's id.
        url: Address that accepts the image's bytes. It carries its own permission and needs no API key.
        method: HTTP method for that address.
        expires_at: When the address expires.
        received: Whether the image has arrived already, under a repeated idempotency key.
        max_bytes: Size of the largest image that the server accepts; None if it doesn't say.
    """

    id: str
    url: str
    method: str = "PUT"
    expires_at: datetime
    received: bool = False
    max_bytes: int | None = None


class Erased(Resource):
    """How much was erased.

    Attributes:
        erased: Number of jobs whose image and report no longer exist.
    """

    erased: int


class Readiness(Resource):
    """Whether the server can produce reports now.

    Attributes:
        ready: Whether every check passed.
        checks: The checks by name, such as ``redis``, ``store`` and ``worker``.
    """

    ready: bool
    checks: dict[str, bool]


class Delivery(Resource):
    """One webhook on its way to one endpoint.

    Attributes:
        id: The delivery's id.
        message: The header ``webhook-id``, which stays the same when an event is sent again.
        job: Id of the job or batch.
        url: The endpoint.
        event: Type of the event, such as ``job.succeeded``.
        status: owed (still being tried), delivered or undelivered (given up).
        tries: Number of tries so far.
        created_at: When it became due.
        next_try_at: When it is tried next; None once it has ended.
        last_answer: HTTP status of the last try, or why there was no answer.
    """

    id: str
    message: str
    job: str
    url: str
    event: str
    status: str
    tries: int
    created_at: datetime
    next_try_at: datetime | None = None
    last_answer: str = ""


class RedeliveredPage(Resource):
    """How many events one request sent again.

    Attributes:
        redelivered: Events that are sent again.
        next_cursor: Start of the next request's part of the range; None once it is done.
    """

    redelivered: int
    next_cursor: str | None = None


class DeliveryPage(Resource):
    """A page of deliveries.

    Attributes:
        items: Deliveries, newest first. A page may be empty though more pages follow.
        next_cursor: Start of the next page; None on the last page.
    """

    items: tuple[Delivery, ...]
    next_cursor: str | None = None


class PingResult(Resource):
    """How an endpoint answered a test event.

    Attributes:
        ok: Whether it answered with 2xx.
        status: HTTP status; None if there was no answer.
        why: Why there was no answer.
    """

    ok: bool
    status: int | None = None
    why: str = ""


class WebhookSecret(Resource):
    """A new signing secret.

    Attributes:
        secret: ``whsec_…``. The server doesn't show it again.
        former_valid_hours: Hours during which events are also signed with the former secret.
    """

    secret: str
    former_valid_hours: int = 24

    def __repr__(self) -> str:  # logs must not contain it
        return "WebhookSecret(secret='whsec_…')"

    __str__ = __repr__


class JobOptions(TypedDict, total=False):
    """Options of a job.

    Attributes:
        priority: Default routine.
        webhook_url: Endpoint that is called when the job ends.
        metadata: The caller's own values, returned unchanged. They must not identify a patient.
        study: The caller's name for images that belong together, to list and erase by.
        patient: The caller's pseudonym for the patient, to list and erase by.
        indication: Clinical context, for models that were trained with it.
        expires_in: Seconds after which the report is no longer needed; default a day.
    """

    priority: Priority
    webhook_url: str
    metadata: dict[str, str]
    study: str
    patient: str
    indication: str
    expires_in: int


class BatchOptions(TypedDict, total=False):
    """Options of a batch.

    Attributes:
        priority: Default backlog.
        webhook_url: Endpoint that is called once, when every item has ended.
        item_webhook_url: Endpoint that is called for each item.
        paused: Whether nothing is read until the batch is resumed, so that its uploads may still be on their way.
    """

    priority: Priority
    webhook_url: str
    item_webhook_url: str
    paused: bool


class JobFilter(TypedDict, total=False):
    """Conditions on listed jobs. A job must meet all of them.

    Attributes:
        state: State of the job.
        priority: Priority of the job.
        study: The caller's name for the study.
        patient: The caller's pseudonym for the patient.
        finding: Code of a finding that the report has, such as ``pleural_effusion``; ``none`` for reports without
            findings.
        submitted_after: Only jobs submitted later than this.
        submitted_before: Only jobs submitted earlier than this.
    """

    state: str
    priority: Priority
    study: str
    patient: str
    finding: str
    submitted_after: datetime
    submitted_before: datetime


class DeliveryFilter(TypedDict, total=False):
    """Conditions on listed deliveries. A delivery must meet all of them.

    Attributes:
        status: owed, delivered or undelivered.
        job: Id of the job or batch.
    """

    status: DeliveryStatus
    job: str
