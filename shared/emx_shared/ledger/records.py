"""What the ledger's objects hold.

Each says by which format it was written, such as 2.0. While processes of two versions run side by side, each reads
what the other writes: a minor version adds fields only, never a kind or a value of what there is.
"""

import json
import uuid
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from emx_shared.contracts.findings import Laterality
from emx_shared.contracts.report import Box, Report
from emx_shared.contracts.states import JobState
from emx_shared.root_error import ExplainMyXrayError

Priority = Literal["stat", "routine", "backlog"]
DeliveryStatus = Literal["owed", "delivered", "undelivered"]
Verdict = Literal["agree", "disagree"]
LocationVerdict = Literal["agreed", "corrected", "rejected", "added"]
_DELIVERIES = uuid.UUID("0d7d8a5c-0a3f-5f53-9f0e-3d6c6d0b6d4e")


FORMAT = "2.0"
"""The format that is written. A store is opened by processes of its major version alone."""


class UnreadableRecord(ExplainMyXrayError):
    """A stored object is damaged, or written by a version that this one doesn't understand.

    Its text quotes nothing of the object.
    """


class CutRecord(UnreadableRecord):
    """A stored object is no whole JSON, as its writer died: it counts as absent, for readers and writers alike."""


def is_whole(data: bytes) -> bool:
    """Return whether a record was written to its end: a part of a JSON object never is one."""
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, extra="ignore")

    format: str = FORMAT

    def dump(self) -> bytes:
        """Return the object's JSON, as it is stored."""
        return self.model_dump_json().encode()

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Parse what ``dump`` returned, in this version or a near one. Raises UnreadableRecord."""
        try:
            return cls.model_validate_json(data, extra=cls.model_config["extra"])  # of its parts as well
        except ValidationError:
            raise _unreadable(cls.__name__, data) from None


_KEEPING = ConfigDict(extra="allow")
"""For what is read and written again: nothing of a newer version's may be lost."""


class OpenMarker(_Stored):
    """``open/{id}``: the job or batch still needs attention.

    Attributes:
        deaths: tokens of the leases that lapsed while a worker read the job.
        batch: of an item, the batch whose courier submits it.
    """

    model_config = _KEEPING
    deaths: tuple[str, ...] = ()
    batch: str | None = None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class Failure(_Part):
    """Why a job failed: a code for programs and a sentence for people, without patient data."""

    code: str
    message: str


class BatchPlace(_Part):
    """Where an item belongs.

    Attributes:
        batch: the batch's id.
        row: number of its row in the manifest, from 0.
        name: the client's own name for the row.
    """

    batch: str
    row: int
    name: str | None = None


class JobRecord(_Stored):
    """``request.json`` of a job: its commit point.

    Attributes:
        nonce: tells writers of the same record apart.
        fingerprint: digest of all that makes the submission, by which a repeated one is recognised.
        expires_at: when the report is no longer wanted.
        study, patient: the client's names for what belongs together.
        item: the job's place in a batch, if it is an item of one.
        refused: why an item ends before it starts; it has no input.
        request_id: under which the logs have the request that submitted it.
    """

    kind: Literal["job"] = "job"
    id: str
    nonce: str = Field(default_factory=lambda: uuid.uuid4().hex)
    fingerprint: str = ""
    tenant: str = "default"
    submitted_at: datetime
    expires_at: datetime | None = None
    priority: Priority = "routine"
    webhook_url: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    study: str | None = None
    patient: str | None = None
    indication: str | None = None
    input_sha256: str = ""
    media_type: str = ""
    item: BatchPlace | None = None
    refused: Failure | None = None
    request_id: str | None = None


class BatchRecord(_Stored):
    """``request.json`` of a batch: its commit point.

    Attributes:
        nonce: tells writers of the same record apart, and names the manifest that counts.
        webhook_url: called once, when all items have ended; ``item_webhook_url`` for each item.
        rows: how many the manifest has.
        retry_of: the batch whose failed items these are.
        starts_paused: whether it is paused until it is resumed for the first time.
    """

    kind: Literal["batch"] = "batch"
    id: str
    nonce: str = Field(default_factory=lambda: uuid.uuid4().hex)
    fingerprint: str = ""
    tenant: str = "default"
    submitted_at: datetime
    priority: Priority = "backlog"
    webhook_url: str | None = None
    item_webhook_url: str | None = None
    rows: int
    retry_of: str | None = None
    request_id: str | None = None
    starts_paused: bool = False


class Tombstone(_Stored):
    """What stands in a record's place when there is nothing to do any more.

    Attributes:
        of: what it was.
        why: ``abandoned`` by a submission that never committed, or ``erased`` on request.
        item: the erased job's place in a batch.
    """

    kind: Literal["tombstone"] = "tombstone"
    of: Literal["job", "batch"] = "job"
    why: Literal["abandoned", "erased"]
    id: str
    tenant: str = "default"
    submitted_at: datetime
    item: BatchPlace | None = None


Record = JobRecord | BatchRecord | Tombstone

_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


def read_record(data: bytes) -> Record:
    """Parse ``request.json``. Raises UnreadableRecord."""
    try:
        return _RECORD.validate_json(data, extra="ignore")
    except ValidationError:
        raise _unreadable("Record", data) from None


def _unreadable(kind: str, data: bytes) -> UnreadableRecord:
    if not is_whole(data):
        return CutRecord(f"A stored {kind} was cut short when it was written.")
    return UnreadableRecord(
        f"A stored {kind} is damaged, or was written by a newer version than this one, whose format is {FORMAT}. "
        "Update this process."
    )


def tombstone_of(record: Record) -> Tombstone:
    """Return what stays of a record that is erased: that it was there, and where."""
    return Tombstone(
        of=record.of if isinstance(record, Tombstone) else record.kind,
        why="erased",
        id=record.id,
        tenant=record.tenant,
        submitted_at=record.submitted_at,
        item=_anonymous(None if isinstance(record, BatchRecord) else record.item),
    )


def _anonymous(item: BatchPlace | None) -> BatchPlace | None:
    return item and item.model_copy(update={"name": None})


class Erasing(_Stored):
    """``erase/{id}``: an erasure under way; ``tombstone`` is what will stay."""

    tombstone: Tombstone


class Outcome(_Stored):
    """``outcome.json``: how a job or a batch ended. The first writer wins, forever.

    Attributes:
        state: one of the terminal states.
        erased: the report was erased since, and the state with it: an erased job is *cancelled*.
        started_at: when the worker that read it started, in UTC.
        attempts: how many workers started it.
        counts: of a batch, its items by state.
    """

    state: JobState
    erased: bool = False
    finished_at: datetime
    started_at: datetime | None = None
    attempts: int | None = None
    report: Report | None = None
    failure: Failure | None = None
    counts: dict[str, int] | None = None


class ReviewedLocation(_Part):
    """What a reader says of one location of a report, or a location that the reader adds.

    Attributes:
        of: index of the location in the report; None for an added one.
        label: of the finding, as the reader has it; ``reported`` is the report's, None for an added one.
        box: in pixels of the original image, turned upright.
        box_normalised: the same in fractions of the image's width and height, 0 to 1.
    """

    model_config = _KEEPING
    of: int | None = None
    verdict: LocationVerdict
    label: str
    code: str
    laterality: Laterality | None = None
    box: Box
    box_normalised: Box
    colour: str
    reported: str | None = None


class FeedbackVersion(_Part):
    """What one reader said of a report at one time. Locations that it doesn't mention were not reviewed.

    Attributes:
        version: from 1; the newest counts.
        reviewer: the reader's initials.
        reviewed_at: by the store's clock, in UTC.
    """

    model_config = _KEEPING
    version: int
    reviewed_at: datetime
    reviewer: str
    verdict: Verdict
    comment: str | None = None
    locations: tuple[ReviewedLocation, ...] = ()


class Feedback(_Stored):
    """``feedback.json``: what readers said of a job's report, beside which it is stored.

    Attributes:
        nonce: tells this object from any other of the same job: one that was deleted never comes back.
        versions: every version, oldest first; none before the first reader's was written.
    """

    model_config = _KEEPING
    nonce: str = Field(default_factory=lambda: uuid.uuid4().hex)
    versions: tuple[FeedbackVersion, ...] = ()

    @property
    def newest(self) -> FeedbackVersion | None:
        """The version that counts; None before the first."""
        return self.versions[-1] if self.versions else None


class Delivery(_Stored):
    """A webhook that is owed (``outbox/{id}``) or has ended (``deliveries/{id}``).

    Attributes:
        message: the id that the receiver sees: that of the first delivery where this one repeats it.
        job: id of the job or batch that the event is about.
        at_once: somebody asked for it to be sent now, however its endpoint has been doing.
    """

    model_config = _KEEPING
    id: str
    tenant: str = "default"
    message: str | None = None
    job: str
    url: str
    event: str
    created_at: datetime
    tries: int = 0
    next_at: datetime
    status: DeliveryStatus = "owed"
    last_answer: str = ""
    at_once: bool = False

    @staticmethod
    def id_of(job: str, url: str, event: str) -> str:
        """Return the id of a delivery: always the same for one event, so that a receiver can drop repeats."""
        return str(uuid.uuid5(_DELIVERIES, f"{job}\n{url}\n{event}"))


class Row(_Part):
    """One image of a batch.

    Attributes:
        image: where it is stored: ``file:SHA256`` of those that came with the batch, ``upload:ID``,
            ``import:PATH`` (put into the store by the operator, below ``imports/TENANT/``), or ``job:ID``,
            another job's.
        name: the client's own name for the row.
        keeps_upload: whether a later row names the same upload, so that it must outlive this row's submission.
    """

    image: str
    name: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    study: str | None = None
    patient: str | None = None
    indication: str | None = None
    keeps_upload: bool = False


ROWS_PER_PAGE = 500
"""Rows in one object of a manifest."""


class ManifestPage(_Stored):
    """A part of a batch's manifest."""

    rows: tuple[Row, ...]
