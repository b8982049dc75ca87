"""Finish: the one way a job or a batch ends. Worker, canceller and reconciler all come through here."""

from datetime import datetime

from emx_shared.contracts.failures import IMAGE_FAULTS
from emx_shared.contracts.states import BatchState, JobState
from emx_shared.ledger import object_keys
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import (
    ROWS_PER_PAGE,
    BatchPlace,
    BatchRecord,
    Delivery,
    JobRecord,
    Outcome,
    Record,
    Tombstone,
    UnreadableRecord,
)
from emx_shared.prometheus_metrics import OUTCOMES


def finish(ledger: Ledger, id: str, outcome: Outcome) -> Outcome:
    """Write an outcome unless there is one, and do what an outcome calls for. Safe to stop and repeat anywhere.

    Returns:
        The outcome that counts: the first that was written.

    Raises:
        StoreError: the store is unavailable; whoever comes next goes on from there.
    """
    store = ledger.store
    won = ledger.write_once(object_keys.outcome(id), outcome.dump())
    winner = ledger.outcome(id) or outcome
    record = ledger.record(id)
    if won and record and _is_job(record):
        OUTCOMES.labels(winner.state).inc()
    if record:
        if delivery := webhook_owed(record, winner):
            _owe(ledger, delivery)
        if not isinstance(record, BatchRecord) and record.item:
            _mark_done(ledger, record.item, winner)
    _announce(ledger, id, record, winner)
    _delete_inputs(ledger, id, record)
    if isinstance(record, BatchRecord) and winner.state == JobState.SUCCEEDED:
        store.delete(object_keys.unread_batch(record.tenant, id))
    store.delete(object_keys.open_marker(id))
    return winner


def cancel(ledger: Ledger, id: str) -> Outcome:
    """Cancel a job or a batch that hasn't ended. Return the outcome that counts."""
    ledger.redis.cancellations.request(id)
    return finish(ledger, id, Outcome(state=JobState.CANCELLED, finished_at=ledger.now()))


def expire(ledger: Ledger, job: JobRecord, now: datetime) -> bool:
    """End the job if its report is no longer wanted, by the store's clock. Return whether it was too old.

    While this machine's clock and the store's disagree, nothing is ended: nobody can tell which of them is wrong.
    """
    if job.expires_at is None or now < job.expires_at or ledger.store.clock_fault():
        return False
    finish(ledger, job.id, Outcome(state=JobState.EXPIRED, finished_at=now))
    return True


def refuse(ledger: Ledger, job: JobRecord) -> None:
    """End an item that was refused."""
    finish(ledger, job.id, Outcome(state=JobState.FAILED, failure=job.refused, finished_at=ledger.now()))


def event_type(record: JobRecord | BatchRecord, outcome: Outcome) -> str:
    """Return the type of the event that tells of an outcome, such as ``job.failed`` or ``batch.completed``."""
    state = BatchState.of_outcome(outcome.state) if isinstance(record, BatchRecord) else outcome.state
    return f"{record.kind}.{state}"


def _is_job(record: Record) -> bool:
    return isinstance(record, JobRecord) or (isinstance(record, Tombstone) and record.of == "job")


def webhook_owed(record: Record, outcome: Outcome) -> Delivery | None:
    """Return the webhook that an outcome calls for; None if there is no address, or all was erased."""
    if isinstance(record, Tombstone) or record.webhook_url is None or outcome.erased:
        return None
    event = event_type(record, outcome)
    return Delivery(
        id=Delivery.id_of(record.id, record.webhook_url, event),
        tenant=record.tenant,
        job=record.id,
        url=record.webhook_url,
        event=event,
        created_at=outcome.finished_at,
        next_at=outcome.finished_at,
    )


def _owe(ledger: Ledger, delivery: Delivery) -> None:
    try:
        known = ledger.delivery(delivery.id)
    except UnreadableRecord:  # it is owed or has ended, as a newer version may tell
        return
    if known is None or known.status == "owed":
        ledger.write_once(object_keys.outbox(delivery.id), delivery.dump())
        ledger.redis.due_deliveries.note(delivery.id, known.next_at if known else delivery.next_at)
        ledger.redis.listings.add_delivery(delivery.tenant, delivery.id, delivery.created_at)


def _mark_done(ledger: Ledger, item: BatchPlace, winner: Outcome) -> None:
    if winner.erased:
        return  # the item had ended before
    marker = object_keys.done_marker(item.batch, item.row // ROWS_PER_PAGE, item.row, winner.state)
    if ledger.store.put_if_absent(marker, b""):
        ledger.redis.batch_counts.item_ended(item.batch, winner.state)
        if winner.started_at and not (winner.failure and winner.failure.code in IMAGE_FAULTS):
            ledger.redis.batch_pace.item_read(item.batch, winner.started_at, winner.finished_at)


def _announce(ledger: Ledger, id: str, record: Record | None, winner: Outcome) -> None:
    """Give hints that save waiting; all of them may be lost."""
    ledger.redis.marks.mark_ended(id, winner.state)
    if isinstance(record, JobRecord):
        ledger.redis.listings.job_ended(record.tenant, id, record.submitted_at, winner.state)
    if record:
        if delivery := webhook_owed(record, winner):
            ledger.queue.deliver(delivery.id)
        if not isinstance(record, BatchRecord) and record.item:
            ledger.queue.advance_batch(record.item.batch)


def _delete_inputs(ledger: Ledger, id: str, record: Record | None) -> None:
    """Delete what a lost race left behind; of a batch, all but the manifest: its items have their own copies."""
    prefix, kept = object_keys.inputs(id), None
    if isinstance(record, BatchRecord):
        prefix, kept = object_keys.submissions(id), object_keys.pages(id, record.nonce)
    elif isinstance(record, JobRecord) and record.input_sha256 and ledger.settings.keep_input:
        kept = object_keys.job_input(id, record.input_sha256)
    for entry in list(ledger.store.list(prefix)):
        if kept is None or not entry.key.startswith(kept):
            ledger.store.delete(entry.key)
