"""Batch: the backlog of a study in one submission. A batch is a job with a manifest."""

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from emx_shared.ledger import object_keys
from emx_shared.ledger.batches.items import cancel_items, ended_items, erase_items, is_paused, submit_items
from emx_shared.ledger.batches.manifest_pages import drop_others, item_id, manifest, write_manifest
from emx_shared.ledger.jobs.erasure import announce_erasure, end_erasure
from emx_shared.ledger.jobs.finish import cancel, finish
from emx_shared.ledger.jobs.submission import Abandoned, Conflict, WasErased, identify, winner
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import OpenMarker, Outcome, Priority, Request, Row

_KEYED = uuid.UUID("b6a1f5a4-4f0c-5c2b-8a64-0f6e8a1d9c37")
_FAILED = ("failed", "expired")


@dataclass(frozen=True)
class NewBatch:
    """A batch to submit.

    Attributes:
        fingerprint: digest of all that makes the submission, where there is an ``idempotency_key``.
        webhook_url: called once, when all has ended; ``item_webhook_url`` for each item.
        retry_of: the batch whose failed items these are.
    """

    tenant: str = "default"
    priority: Priority = "backlog"
    webhook_url: str | None = None
    item_webhook_url: str | None = None
    idempotency_key: str | None = None
    fingerprint: str = ""
    retry_of: str | None = None


@dataclass(frozen=True)
class Progress:
    """How many items have ended, by state."""

    rows: int
    ended: Counter[str]

    @property
    def counts(self) -> dict[str, int]:
        return {**{state: n for state, n in self.ended.items() if n}, "open": self.rows - self.ended.total()}


def submitted_batch_before(ledger: Ledger, new: NewBatch) -> Request | None:
    """The request that a repeated idempotency key stands for. Raises Conflict, WasErased, StoreError."""
    return _identify(ledger, new)[1]


def submit_batch(
    ledger: Ledger, new: NewBatch, rows: Iterable[Row], files: Iterable[tuple[str, bytes]] = ()
) -> Request:
    """Commit the batch; the courier submits its items.

    Rows are read one by one, so that there may be more than fit into memory; ``files`` are images that came along,
    by their SHA-256. A repeated key gets the first request back.

    Raises Conflict, Abandoned, WasErased, StoreError.
    """
    batch, known = _identify(ledger, new)
    if known:
        return known
    store, nonce = ledger.store, uuid.uuid4().hex
    store.put_if_absent(object_keys.open_marker(batch), OpenMarker().dump())
    for sha256, data in files:
        store.put(object_keys.batch_input(batch, nonce, sha256), data)
    count = write_manifest(ledger, batch, nonce, rows)
    request = Request(
        id=batch,
        kind="batch",
        nonce=nonce,
        fingerprint=new.fingerprint,
        tenant=new.tenant,
        submitted_at=store.now(),
        priority=new.priority,
        webhook_url=new.webhook_url,
        item_webhook_url=new.item_webhook_url,
        rows=count,
        retry_of=new.retry_of,
    )
    # Before the commit: whoever erases must find every row.
    store.put(object_keys.unread_batch(new.tenant, batch), b"")
    if not store.put_if_absent(object_keys.request(batch), request.dump()):
        request = _winner(ledger, request)
    drop_others(ledger, request)
    ledger.redis.listings.add_batch(new.tenant, batch, request.submitted_at)
    ledger.queue.expand(batch)
    return request


def _identify(ledger: Ledger, new: NewBatch) -> tuple[str, Request | None]:
    if new.idempotency_key is None:
        return str(uuid.uuid4()), None
    return identify(ledger, _KEYED, new.tenant, new.idempotency_key, new.fingerprint)


def _winner(ledger: Ledger, mine: Request) -> Request:
    """The request that counts; where it isn't to be had, mine is taken away again."""
    try:
        return winner(ledger, mine)
    except (Abandoned, WasErased, Conflict):
        ledger.store.delete_below(object_keys.submission(mine.id, mine.nonce))
        raise


def expand(ledger: Ledger, batch: str) -> None:
    """Bring the batch forward: submit items up to the window, or end it. Safe to stop and repeat anywhere."""
    request = ledger.request(batch)
    if request is None or request.status == "abandoned":
        return
    if request.status == "erased":
        end_erasure(ledger, batch)
        return
    outcome = ledger.outcome(batch)
    if outcome and ledger.erasing(batch):
        _end_erasure(ledger, request)
        return
    if outcome:
        cancel_items(ledger, request)
        finish(ledger, batch, outcome)
        return
    so_far = progress(ledger, request)
    if so_far.ended.total() >= so_far.rows:
        exact = recount(ledger, request)
        if exact.ended.total() == exact.rows:
            counts = {state: n for state, n in exact.counts.items() if state != "open"}
            finish(ledger, batch, Outcome(kind="completed", finished_at=ledger.store.now(), counts=counts))
    elif not is_paused(ledger, batch):
        submit_items(ledger, request, min(so_far.rows, so_far.ended.total() + ledger.settings.batch_window))


def progress(ledger: Ledger, request: Request) -> Progress:
    """As Redis remembers it for a minute, else counted."""
    counted = ledger.redis.batch_counts.get(request.id)
    return recount(ledger, request) if counted is None else Progress(request.rows or 0, Counter(counted))


def recount(ledger: Ledger, request: Request) -> Progress:
    """Counted from the done-markers in the store."""
    ended = Counter(ended_items(ledger, request.id).values())
    ledger.redis.batch_counts.put(request.id, ended)
    return Progress(request.rows or 0, ended)


def pause(ledger: Ledger, batch: str) -> None:
    """No more items are submitted; those that were go on."""
    ledger.store.put(object_keys.paused(batch), b"{}")


def resume(ledger: Ledger, batch: str) -> None:
    ledger.store.delete(object_keys.paused(batch))
    ledger.queue.expand(batch)


def failed_rows(ledger: Ledger, request: Request) -> set[int]:
    """Those that failed or expired so far."""
    return {row for row, state in ended_items(ledger, request.id).items() if state in _FAILED}


def retry(ledger: Ledger, request: Request, failed: set[int], new: NewBatch) -> Request:
    """A new batch of these rows. An image that was never found, or taken, is looked for where it was to be."""

    def rows() -> Iterator[Row]:
        for number, row in manifest(ledger, request):
            if number in failed:
                item = item_id(request.id, number)
                known = ledger.request(item)
                yield row if known and known.refused else row.model_copy(update={"image": f"job:{item}"})

    return submit_batch(ledger, new, rows())


def erase_batch(ledger: Ledger, request: Request) -> Outcome:
    """From now on a batch and all its jobs are being erased; the courier does it. Returns how it had ended."""
    tombstone = Request(
        id=request.id, kind="batch", status="erased", tenant=request.tenant, submitted_at=request.submitted_at
    )
    announce_erasure(ledger, tombstone)
    outcome = cancel(ledger, request.id)
    ledger.queue.expand(request.id)
    return outcome


def _end_erasure(ledger: Ledger, request: Request) -> None:
    if not erase_items(ledger, request):
        return
    ledger.store.delete_below(object_keys.batch(request.id))
    ledger.store.delete(object_keys.unread_batch(request.tenant, request.id))
    ledger.redis.listings.remove_batch(request.tenant, request.id)
    end_erasure(ledger, request.id)
