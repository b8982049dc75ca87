"""The shapes of the gateway's answers."""

from datetime import datetime

from pydantic import BaseModel, Field

from shared.ledger import Ledger
from shared.ledger.records import Failure, JobState, Outcome, Priority, Request
from shared.report import DISCLAIMER, Report


class Job(BaseModel):
    """One study on its way to a report."""

    id: str
    state: JobState
    priority: Priority
    submitted_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    batch: str | None = None
    report: Report | None = None
    failure: Failure | None = Field(default=None, description="Why the job failed")
    disclaimer: str = DISCLAIMER


class BatchItem(BaseModel):
    id: str
    state: JobState


class Batch(BaseModel):
    """Many studies in one submission."""

    id: str
    state: JobState
    submitted_at: datetime
    finished_at: datetime | None = None
    total: int
    counts: dict[str, int] = Field(description="Items by state; open are those that haven't ended")
    items: list[BatchItem] = Field(description="In the order of the files")
    disclaimer: str = DISCLAIMER


def job_resource(ledger: Ledger, request: Request, outcome: Outcome | None) -> Job:
    return Job(
        id=request.id,
        state=ledger.state(request.id, outcome),
        priority=request.priority,
        submitted_at=request.submitted_at,
        started_at=outcome.started_at if outcome else None,
        finished_at=outcome.finished_at if outcome else None,
        batch=request.batch,
        report=outcome.report if outcome else None,
        failure=outcome.failure if outcome else None,
    )
