"""The shapes of the gateway's answers."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from emx_shared.contracts.report import DISCLAIMER, Report
from emx_shared.ledger import Ledger
from emx_shared.ledger.records import Failure, JobState, Outcome, Priority, Request

POLL_AFTER = {"Retry-After": "1"}
"""Headers of an answer about something that hasn't ended."""


def links(*operations: str) -> dict[str, Any]:
    """For OpenAPI: operations that take the id of what was answered."""
    return {name: {"operationId": name, "parameters": {"id": "$response.body#/id"}} for name in operations}


class Job(BaseModel):
    """One study on its way to a report."""

    id: str
    state: JobState
    priority: Priority
    submitted_at: datetime
    started_at: datetime | None = Field(default=None, description="When a worker began to read it, last")
    finished_at: datetime | None = None
    expires_at: datetime | None = Field(default=None, description="After this the job is not read any more")
    ahead: int | None = Field(default=None, description="Jobs of the same priority that come before this one")
    attempts: int = Field(default=0, description="How many workers began to read it")
    metadata: dict[str, str] = Field(default_factory=dict)
    study: str | None = None
    patient: str | None = None
    batch: str | None = None
    report: Report | None = None
    failure: Failure | None = Field(default=None, description="Why the job failed")
    disclaimer: str = DISCLAIMER


class JobList(BaseModel):
    """A page of jobs."""

    items: list[Job]
    next_cursor: str | None = Field(description="For the next page; null on the last one")
    complete: bool = Field(description="False for a while after Redis was lost: older jobs are being listed again")


class Erased(BaseModel):
    erased: int = Field(description="Jobs whose image and report are gone")


class BatchItem(BaseModel):
    """A row of a batch."""

    row: int
    name: str | None = Field(description="Your own for the row")
    id: str = Field(description="Of its job, which is there once the row was submitted")
    state: JobState


class BatchItems(BaseModel):
    items: list[BatchItem]
    next_row: int | None = Field(description="For the next page; null on the last one")


BatchState = Literal["running", "paused", "succeeded", "cancelled"]


class Batch(BaseModel):
    """Many studies in one submission."""

    id: str
    state: BatchState = Field(description="succeeded: every item has ended, whatever its end was")
    priority: Priority
    submitted_at: datetime
    finished_at: datetime | None = None
    total: int
    counts: dict[str, int] = Field(description="Items by state; open are those that haven't ended")
    per_minute: float | None = Field(description="Items that ended each minute, so far")
    seconds_left: float | None = Field(description="Until all have ended, at this rate")
    retry_of: str | None = Field(default=None, description="The batch whose failed items these are")
    disclaimer: str = DISCLAIMER


class BatchList(BaseModel):
    items: list[Batch]
    next_cursor: str | None


def job_resource(ledger: Ledger, request: Request, outcome: Outcome | None) -> Job:
    state = ledger.state(request.id, outcome)
    begun = outcome.started_at if outcome else ledger.redis.marks.started_at(request.id)
    waits = state == JobState.QUEUED
    return Job(
        id=request.id,
        state=state,
        priority=request.priority,
        submitted_at=request.submitted_at,
        started_at=begun,
        finished_at=outcome.finished_at if outcome else None,
        expires_at=None if outcome else request.expires_at,
        ahead=ledger.redis.turns.ahead(request.id, request.priority, request.tenant) if waits else None,
        attempts=(outcome.attempts or 0) if outcome else len(ledger.open_marker(request.id).deaths) + (not waits),
        metadata=request.metadata,
        study=request.study,
        patient=request.patient,
        batch=request.batch,
        report=outcome.report if outcome else None,
        failure=outcome.failure if outcome else None,
    )
