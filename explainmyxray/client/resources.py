"""What a server tells of: jobs, batches, uploads. Fields that a newer server adds are passed over."""

from datetime import datetime
from typing import Literal, TypedDict, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from emx_shared.contracts.report import Report

Priority = Literal["stat", "routine", "backlog"]
RenderingKind = Literal["json", "txt", "html", "pdf", "png"]
ManifestKind = Literal["text/csv", "application/x-ndjson"]
BatchChange = Literal["pause", "resume", "retry"]


class Resource(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


R = TypeVar("R", bound=BaseModel)


def read_json(kind: type[R], content: bytes) -> R:
    """Also a report, which is strict elsewhere, may have fields that are unknown here. Raises ValueError."""
    return kind.model_validate_json(content, extra="ignore")


class Failure(Resource):
    """Why a job failed: a code for programs and a sentence for people."""

    code: str
    message: str


class Job(Resource):
    """One study on its way to a report.

    Attributes:
        state: queued, running, succeeded, failed, cancelled or expired.
        ahead: jobs of the same priority that come before this one, while it waits.
        report: once it succeeded; a listed job comes without.
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
    report: Report | None = None
    failure: Failure | None = None

    @property
    def ended(self) -> bool:
        return self.finished_at is not None


class JobPage(Resource):
    items: tuple[Job, ...]
    next_cursor: str | None = None


class BatchItem(Resource):
    """A row of a batch, and the job that it is or will be."""

    row: int
    name: str | None = None
    id: str
    state: str


class BatchItems(Resource):
    items: tuple[BatchItem, ...]
    next_row: int | None = None


class Batch(Resource):
    """Many studies in one submission.

    Attributes:
        state: running, paused, succeeded (all have ended, each in its way) or cancelled.
        counts: items by state; ``open`` are those that haven't ended.
        per_minute, seconds_left: how quick it has been, and for how long it will go on.
        retry_of: the batch whose failed items these are.
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
        return self.finished_at is not None

    @property
    def done(self) -> int:
        """Items that have ended."""
        return self.total - self.counts.get("open", 0)


class Upload(Resource):
    """An image that lies with the server, and may be submitted."""

    id: str
    url: str
    method: str = "PUT"
    expires_at: datetime


class Erased(Resource):
    erased: int


class Readiness(Resource):
    """Whether a report would be written now, and what it needs that is there."""

    ready: bool
    checks: dict[str, bool]


class JobOptions(TypedDict, total=False):
    """What may be said of a study beside the image.

    priority: stat is read first, backlog last; routine where none is given.
    webhook_url: called when the job ends.
    metadata: your own, given back as it came; nothing of a patient.
    study, patient: your names, to list and erase by; a pseudonym for the patient.
    indication: clinical context, for models that were trained to take it.
    expires_in: seconds after which the report is no longer wanted.
    """

    priority: Priority
    webhook_url: str
    metadata: dict[str, str]
    study: str
    patient: str
    indication: str
    expires_in: int


class BatchOptions(TypedDict, total=False):
    """What may be said of a batch; backlog is the priority where none is given.

    webhook_url is called once, when all have ended; item_webhook_url for each item.
    """

    priority: Priority
    webhook_url: str
    item_webhook_url: str


class JobFilter(TypedDict, total=False):
    """Which jobs are listed; all of what is given must hold."""

    state: str
    priority: Priority
    study: str
    patient: str
    submitted_after: datetime
    submitted_before: datetime
