"""Start: a worker takes a job in hand, or drops the message."""

from dataclasses import dataclass
from datetime import datetime

from emx_shared.ledger.jobs.finish import expire, finish
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import Request


@dataclass(frozen=True)
class Started:
    """A job in hand.

    Attributes:
        attempts: this one, and those of workers that died with the job.
    """

    request: Request
    token: str
    started_at: datetime
    attempts: int

    @property
    def alone(self) -> bool:
        """A worker died with it before, so it is a suspect and runs without batch-mates."""
        return self.attempts > 1


def start(ledger: Ledger, job: str, token: str) -> Started | None:
    """Take the lease. None: another worker has it, or there is nothing (more) to do."""
    if not ledger.redis.leases.take(job, token):
        return None
    request, outcome = ledger.request(job), ledger.outcome(job)
    now = ledger.store.now()
    if outcome:
        finish(ledger, job, outcome)  # somebody stopped in the middle of it
    elif request and request.status == "committed":
        batch_outcome = ledger.outcome(request.batch) if request.batch else None
        if batch_outcome and batch_outcome.kind == "cancelled":
            finish(ledger, job, batch_outcome.model_copy(update={"counts": None}))
        elif not expire(ledger, request, now):
            ledger.redis.marks.mark_started(job, token)
            return Started(request, token, now, attempts=1 + len(ledger.open_marker(job).deaths))
    ledger.redis.leases.release(job, token)
    return None


def hand_back(ledger: Ledger, started: Started) -> None:
    """At shutdown: let another worker have the job at once, without counting a death.

    The lease goes before the message comes: a worker that is quick would drop the message otherwise.
    """
    ledger.redis.marks.forget_start(started.request.id)
    ledger.redis.leases.release(started.request.id, started.token)
    ledger.enqueue(started.request)
