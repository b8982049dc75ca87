"""Start: a worker takes a job, or drops the message."""

from dataclasses import dataclass
from datetime import datetime

from emx_shared.contracts.states import JobState
from emx_shared.ledger.jobs.finish import expire, finish
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import JobRecord


@dataclass(frozen=True)
class Started:
    """A job that this worker has taken.

    Attributes:
        token: the worker's, under which it holds the lease.
        started_at: by the store's clock, in UTC.
        attempts: this one, and those of workers that died with the job.
    """

    job: JobRecord
    token: str
    started_at: datetime
    attempts: int

    @property
    def alone(self) -> bool:
        """Whether it must run by itself: a worker died with it before, so it is a suspect."""
        return self.attempts > 1


def start(ledger: Ledger, job: str, token: str) -> Started | None:
    """Take a job and begin it at once.

    Returns:
        The started job; None if another worker has it, or there is nothing (more) to do.

    Raises:
        StoreError, RedisError: nothing was started; try again.
    """
    if started := take(ledger, job, token):
        begin(ledger, started)
    return started


def take(ledger: Ledger, job: str, token: str) -> Started | None:
    """Take a job's lease. Until ``begin``, the worker's death doesn't count against the job.

    Returns:
        The job; None if another worker has it, or there is nothing (more) to do.

    Raises:
        StoreError, RedisError: nothing was taken; try again.
    """
    if not ledger.redis.leases.take(job, token):
        return None
    record, outcome = ledger.job(job), ledger.outcome(job)
    now = ledger.now()
    if outcome:
        finish(ledger, job, outcome)  # somebody stopped in the middle of it
    elif record:
        batch_outcome = ledger.if_readable(ledger.outcome, record.item.batch) if record.item else None
        if batch_outcome and batch_outcome.state == JobState.CANCELLED:
            finish(ledger, job, batch_outcome.model_copy(update={"counts": None, "erased": False}))
        elif not expire(ledger, record, now):
            return Started(record, token, now, attempts=1 + len(ledger.open_marker(job).deaths))
    ledger.redis.leases.release(job, token)
    return None


def begin(ledger: Ledger, started: Started) -> None:
    """Mark a job as started: from now on, its worker's death counts against it. Raises RedisError."""
    job = started.job
    ledger.redis.marks.mark_started(job.id, started.token)
    ledger.redis.listings.job_started(job.tenant, job.id, job.submitted_at)


def hand_back(ledger: Ledger, started: Started) -> None:
    """Let another worker have the job at once, without counting a death: this one is shutting down.

    The lease goes before the message comes: a quick worker would drop the message otherwise.
    """
    ledger.redis.marks.forget_start(started.job.id)
    ledger.redis.leases.release(started.job.id, started.token)
    ledger.enqueue(started.job)
