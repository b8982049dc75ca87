"""Advance a batch towards its end, and tell how far it has come."""

import time
from collections import Counter
from dataclasses import dataclass, replace

from emx_shared.contracts.failures import PERMANENT_FAILURES
from emx_shared.contracts.states import JobState
from emx_shared.ledger import object_keys
from emx_shared.ledger.batches.items import cancel_items, ended_items, is_paused, submit_items
from emx_shared.ledger.batches.manifest_pages import item_id
from emx_shared.ledger.jobs.finish import finish
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import BatchRecord, Outcome

_FAILED = (JobState.FAILED, JobState.EXPIRED)


@dataclass(frozen=True)
class BatchProgress:
    """How many of a batch's items have ended, by state.

    Attributes:
        cancelled: whether the batch was: every item that hasn't ended otherwise is cancelled then, also one that
            has no job yet.
    """

    rows: int
    ended: Counter[str]
    cancelled: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """Items by state, and ``open``: those that haven't ended."""
        found, open_ = Counter(self.ended), self.rows - self.ended.total()
        if self.cancelled:
            found["cancelled"] += open_
            open_ = 0
        return {**{state: n for state, n in found.items() if n}, "open": open_}


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
    elif not is_paused(ledger, batch):
        submit_items(ledger, batch, min(so_far.rows, so_far.ended.total() + ledger.settings.batch_window))


def batch_progress(ledger: Ledger, batch: BatchRecord, outcome: Outcome | None = None) -> BatchProgress:
    """Return a batch's progress: of an ended one as its outcome says, else as Redis remembers it for seconds.

    Redis may count an item twice that ended while the store was being counted. Where that shows, or where Redis
    remembers nothing, the store is counted.
    """
    if outcome is not None and outcome.counts:
        return BatchProgress(batch.rows, Counter(outcome.counts))
    counted = ledger.redis.batch_counts.get(batch.id)
    if counted is None or sum(counted.values()) > batch.rows:
        found = count_ended_items(ledger, batch)
    else:
        found = BatchProgress(batch.rows, Counter(counted))
    return replace(found, cancelled=outcome is not None and outcome.state == JobState.CANCELLED)


def count_ended_items(ledger: Ledger, batch: BatchRecord) -> BatchProgress:
    """Count a batch's done-markers in the store."""
    began = time.monotonic()
    ended: Counter[str] = Counter(ended_items(ledger, batch.id).values())
    ledger.redis.batch_counts.put(batch.id, ended, time.monotonic() - began)
    return BatchProgress(batch.rows, ended)


def failed_rows(ledger: Ledger, batch: BatchRecord) -> set[int]:
    """Return the rows that have failed or expired so far."""
    return {row for row, state in ended_items(ledger, batch.id).items() if state in _FAILED}


def is_permanent_failure(ledger: Ledger, batch: BatchRecord, row: int) -> bool:
    """Return whether a row's image is known to fail again, so that trying it again is of no use."""
    outcome = ledger.if_readable(ledger.outcome, item_id(batch.id, row))
    return bool(outcome and outcome.failure and outcome.failure.code in PERMANENT_FAILURES)


def pause_batch(ledger: Ledger, batch: str) -> None:
    """Submit no more items; those that were submitted are read."""
    ledger.store.put(object_keys.paused(batch), b"{}")


def resume_batch(ledger: Ledger, batch: str) -> None:
    """Submit items again."""
    ledger.redis.batch_pace.forget(batch)
    ledger.store.put(object_keys.resumed(batch), b"{}")
    ledger.store.delete(object_keys.paused(batch))
    ledger.queue.advance_batch(batch)
