"""What the ledger's objects hold."""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from emx_shared.contracts.report import Report

Priority = Literal["stat", "routine", "backlog"]
DeliveryStatus = Literal["owed", "delivered", "undelivered"]
_DELIVERIES = uuid.UUID("0d7d8a5c-0a3f-5f53-9f0e-3d6c6d0b6d4e")


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)

    def dump(self) -> bytes:
        return self.model_dump_json().encode()


class OpenMarker(_Record):
    """The job still needs attention.

    Attributes:
        deaths: the leases that lapsed with the job in hand.
        batch: of an item, the batch whose courier submits it.
    """

    deaths: tuple[str, ...] = ()
    batch: str | None = None


class Failure(_Record):
    """Why a job failed: a code for programs and a sentence for people, without patient data."""

    code: str
    message: str


class Request(_Record):
    """``request.json``, the commit point of a job or a batch.

    Attributes:
        nonce: tells writers of the same request apart.
        refused: why an item of a batch ends before it begins; it has no input.
    """

    id: str
    kind: Literal["job", "batch"] = "job"
    status: Literal["committed", "abandoned", "erased"] = "committed"
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
    batch: str | None = None
    row: int | None = None
    name: str | None = None
    rows: int | None = None
    item_webhook_url: str | None = None
    retry_of: str | None = None
    refused: Failure | None = None


class Erasing(_Record):
    """A job or a batch that is being erased; ``tombstone`` is what stays of its request."""

    tombstone: Request


OutcomeKind = Literal["report", "failure", "cancelled", "expired", "completed", "erased"]

_STATE_OF: dict[OutcomeKind, JobState] = {
    "report": JobState.SUCCEEDED,
    "completed": JobState.SUCCEEDED,
    "failure": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
    "erased": JobState.CANCELLED,
    "expired": JobState.EXPIRED,
}


class Outcome(_Record):
    """``outcome.json``: the first writer wins, forever. ``completed`` is a batch's."""

    kind: OutcomeKind
    finished_at: datetime
    started_at: datetime | None = None
    attempts: int | None = None
    report: Report | None = None
    failure: Failure | None = None
    counts: dict[str, int] | None = None

    @property
    def state(self) -> JobState:
        return _STATE_OF[self.kind]


class Delivery(_Record):
    """A webhook owed (in the outbox) or ended (in deliveries).

    ``message`` is the id that the receiver sees: that of the first delivery where this one repeats it.
    """

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

    @staticmethod
    def id_of(job: str, url: str, event: str) -> str:
        """The same job, endpoint and event always give the same id, so that a receiver can drop repeats."""
        return str(uuid.uuid5(_DELIVERIES, f"{job}\n{url}\n{event}"))


class Row(_Record):
    """One study of a batch.

    Attributes:
        image: where it lies: ``file:SHA256`` of those that came with the batch, ``upload:ID``, ``import:PATH``
            (put into the store by the operator, below ``imports/TENANT/``), or ``job:ID``, another job's.
        name: the client's own for the row.
    """

    image: str
    name: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    study: str | None = None
    patient: str | None = None
    indication: str | None = None


PAGE = 500
"""Rows that lie in one object."""


class Page(_Record):
    """A part of a batch's manifest."""

    rows: tuple[Row, ...]
