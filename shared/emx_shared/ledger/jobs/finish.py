"""Finish: the one way a job ends. Worker, canceller and reconciler all come through here."""

from datetime import datetime

from emx_shared.ledger import object_keys
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import PAGE, Delivery, Outcome, Request
from emx_shared.prometheus_metrics import OUTCOMES


def finish(ledger: Ledger, job: str, outcome: Outcome) -> Outcome:
    """Write ``outcome`` unless the job has one, and do what an outcome calls for. Returns the winner."""
    store = ledger.store
    won = store.put_if_absent(object_keys.outcome(job), outcome.dump())
    winner = ledger.outcome(job) or outcome
    request = ledger.request(job)
    if won and request and request.kind == "job":
        OUTCOMES.labels(winner.state).inc()
    if request:
        for delivery in _owed(request, winner):
            if not store.exists(object_keys.delivery(delivery.id)):
                store.put_if_absent(object_keys.outbox(delivery.id), delivery.dump())
                ledger.redis.listings.add_delivery(delivery.tenant, delivery.id, delivery.created_at)
        if request.batch is not None and request.row is not None:
            _mark_done(ledger, request.batch, request.row, winner)
    _announce(ledger, job, request, winner)
    _delete_inputs(ledger, job, request)
    if request and winner.kind == "completed":
        store.delete(object_keys.unread_batch(request.tenant, job))
    store.delete(object_keys.open_marker(job))
    return winner


def _mark_done(ledger: Ledger, batch: str, row: int, winner: Outcome) -> None:
    if winner.kind == "erased":
        return  # the item had ended before
    if ledger.store.put_if_absent(object_keys.done_marker(batch, row // PAGE, row, winner.state), b""):
        ledger.redis.batch_counts.item_ended(batch, winner.state)


def cancel(ledger: Ledger, job: str) -> Outcome:
    """Returns the outcome that counts: its kind is ``cancelled`` if cancelling came first."""
    ledger.redis.cancellations.request(job)
    return finish(ledger, job, Outcome(kind="cancelled", finished_at=ledger.store.now()))


def expire(ledger: Ledger, request: Request, now: datetime) -> bool:
    """End the job if it is too old, by the store's clock."""
    if request.expires_at is None or now < request.expires_at:
        return False
    finish(ledger, request.id, Outcome(kind="expired", finished_at=now))
    return True


def refuse(ledger: Ledger, request: Request) -> None:
    """End an item that was refused."""
    finish(ledger, request.id, Outcome(kind="failure", failure=request.refused, finished_at=ledger.store.now()))


def _owed(request: Request, outcome: Outcome) -> list[Delivery]:
    if request.webhook_url is None or outcome.kind == "erased":
        return []
    event = f"{request.kind}.{outcome.state}"
    return [
        Delivery(
            id=Delivery.id_of(request.id, request.webhook_url, event),
            tenant=request.tenant,
            job=request.id,
            url=request.webhook_url,
            event=event,
            created_at=outcome.finished_at,
            next_at=outcome.finished_at,
        )
    ]


def _announce(ledger: Ledger, job: str, request: Request | None, winner: Outcome) -> None:
    """Hints that save waiting; all of them may be lost."""
    ledger.redis.marks.mark_ended(job, winner.state)
    if request:
        for delivery in _owed(request, winner):
            ledger.queue.deliver(delivery.id)
        if request.batch:
            ledger.queue.expand(request.batch)


def _delete_inputs(ledger: Ledger, job: str, request: Request | None) -> None:
    """What a lost race left behind; of a batch, all but the manifest, as its items have their own copies."""
    prefix, kept = object_keys.inputs(job), None
    if request and request.kind == "batch":
        prefix, kept = object_keys.submissions(job), object_keys.pages(job, request.nonce)
    elif request and request.input_sha256:
        kept = object_keys.job_input(job, request.input_sha256)
    for entry in list(ledger.store.list(prefix)):
        if kept is None or not entry.key.startswith(kept):
            ledger.store.delete(entry.key)
