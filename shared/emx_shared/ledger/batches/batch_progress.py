"""Advance a batch towards its end, and tell how far it has come."""

from collections import Counter
from dataclasses import dataclass

from emx_shared.contracts.states import JobState
from emx_shared.ledger import object_keys
from emx_shared.ledger.batches.items import cancel_items, ended_items, is_paused, submit_items
from emx_shared.ledger.jobs.finish import finish
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import BatchRecord, Outcome

_FAILED = (JobState.FAILED, JobState.EXPIRED)


@dataclass(frozen=True)
class BatchProgress:
    """How many of a batch's items have ended, by state."""

    rows: int
    ended: Counter[str]

    @property
    def counts(self) -> dict[str, int]:
        """Items by state, and ``open``: those that haven't ended."""
        return {**{state: n for state, n in self.ended.items() if n}, "open": self.rows - self.ended.total()}


def advance_batch(ledger: Ledger, id: str) -> None:
    """Submit a batch's items up to its window, or end it. Safe to stop and repeat anywhere.

    A batch that is being erased is left alone: ``end_batch_erasure`` sees to its items.
    """
    batch = ledger.batch(id)
    if batch is None or ledger.erasing(id):
        return
    if outcome := ledger.outcome(id):
        cancel_items(ledger, batch)
        finish(ledger, id, outcome)
        return
    so_far = batch_progress(ledger, batch)
    if so_far.ended.total() >= so_far.rows:
        exact = count_ended_items(ledger, batch)
        if exact.ended.total() == exact.rows:
            counts = {state: n for state, n in exact.counts.items() if state != "open"}
            finish(ledger, id, Outcome(state=JobState.SUCCEEDED, finished_at=ledger.now(), counts=counts))
    elif not is_paused(ledger, id):
        submit_items(ledger, batch, min(so_far.rows, so_far.ended.total() + ledger.settings.batch_window))


def batch_progress(ledger: Ledger, batch: BatchRecord) -> BatchProgress:
    """Return a batch's progress as Redis remembers it for a minute, else counted from the store."""
    counted = ledger.redis.batch_counts.get(batch.id)
    return count_ended_items(ledger, batch) if counted is None else BatchProgress(batch.rows, Counter(counted))


def count_ended_items(ledger: Ledger, batch: BatchRecord) -> BatchProgress:
    """Count a batch's done-markers in the store."""
    ended: Counter[str] = Counter(ended_items(ledger, batch.id).values())
    ledger.redis.batch_counts.put(batch.id, ended)
    return BatchProgress(batch.rows, ended)


def failed_rows(ledger: Ledger, batch: BatchRecord) -> set[int]:
    """Return the rows that have failed or expired so far."""
    return {row for row, state in ended_items(ledger, batch.id).items() if state in _FAILED}


def pause_batch(ledger: Ledger, batch: str) -> None:
    """Submit no more items; those that were submitted are read."""
    ledger.store.put(object_keys.paused(batch), b"{}")


def resume_batch(ledger: Ledger, batch: str) -> None:
    """Submit items again."""
    ledger.store.delete(object_keys.paused(batch))
    ledger.queue.advance_batch(batch)
