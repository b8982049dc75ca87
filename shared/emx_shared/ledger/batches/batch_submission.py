"""Submit a batch: the backlog of a study in one submission. A batch is a job with a manifest."""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from emx_shared.ledger import object_keys
from emx_shared.ledger.batches.manifest_pages import (
    drop_other_submissions,
    item_id,
    manifest_rows,
    write_manifest,
)
from emx_shared.ledger.jobs.submission import Claim, claim_key, committed
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import BatchRecord, OpenMarker, Priority, Row
from emx_shared.ledger.submission_errors import IdempotencyConflict, SubmissionAbandoned, SubmissionErased

_KEYED_BATCHES = uuid.UUID("b6a1f5a4-4f0c-5c2b-8a64-0f6e8a1d9c37")


@dataclass(frozen=True)
class NewBatch:
    """A batch to submit.

    Attributes:
        webhook_url: called once, when all has ended; ``item_webhook_url`` for each item.
        idempotency_key: the client's, where it sent one.
        fingerprint: digest of all that makes the submission, where there is an ``idempotency_key``.
        retry_of: the batch whose failed items these are.
        request_id: under which the logs have the request.
        paused: whether nothing is submitted until the batch is resumed, so that its uploads may still be on their
            way.
    """

    tenant: str = "default"
    priority: Priority = "backlog"
    webhook_url: str | None = None
    item_webhook_url: str | None = None
    idempotency_key: str | None = None
    fingerprint: str = ""
    retry_of: str | None = None
    request_id: str | None = None
    paused: bool = False


def claim_batch(ledger: Ledger, new: NewBatch) -> Claim[BatchRecord]:
    """Find the id of a new batch, or the batch that its idempotency key stands for already.

    Raises:
        IdempotencyConflict: the key was used for another request.
        SubmissionErased: the key's batch was erased.
        StoreError: the store is unavailable.
    """
    if new.idempotency_key is None:
        return Claim(str(uuid.uuid4()))
    return claim_key(ledger, BatchRecord, _KEYED_BATCHES, new.tenant, new.idempotency_key, new.fingerprint)


def submit_batch(
    ledger: Ledger,
    new: NewBatch,
    rows: Iterable[Row],
    files: Iterable[tuple[str, bytes]] = (),
    claim: Claim[BatchRecord] | None = None,
) -> BatchRecord:
    """Commit a batch; the courier submits its items. A repeated idempotency key gives the first batch back.

    Args:
        ledger: where to.
        new: the batch.
        rows: the manifest, read row by row, so that it may be larger than memory.
        files: images that came along, each with its SHA-256 in hexadecimal.
        claim: what ``claim_batch`` found, where it was asked before.

    Raises:
        IdempotencyConflict, SubmissionAbandoned, SubmissionErased: see ``ledger/submission_errors.py``.
        StoreError: the store is unavailable; nothing was accepted.
    """
    claim = claim or claim_batch(ledger, new)
    if claim.replayed:
        return claim.replayed
    store, id, nonce = ledger.store, claim.id, uuid.uuid4().hex
    ledger.write_once(object_keys.open_marker(id), OpenMarker().dump())
    for sha256, data in files:
        store.put(object_keys.batch_input(id, nonce, sha256), data)
    count = write_manifest(ledger, id, nonce, rows)
    batch = BatchRecord(
        id=id,
        nonce=nonce,
        fingerprint=new.fingerprint,
        tenant=new.tenant,
        submitted_at=store.now(),
        priority=new.priority,
        webhook_url=new.webhook_url,
        item_webhook_url=new.item_webhook_url,
        rows=count,
        retry_of=new.retry_of,
        request_id=new.request_id,
        starts_paused=new.paused,
    )
    # Before the commit: whoever erases a patient must find every row.
    store.put(object_keys.unread_batch(new.tenant, id), b"")
    if not ledger.write_once(object_keys.record(id), batch.dump()):
        batch = _committed(ledger, batch)
    drop_other_submissions(ledger, batch)
    ledger.redis.listings.add_batch(new.tenant, id, batch.submitted_at)
    ledger.queue.advance_batch(id)
    return batch


def retry_batch(
    ledger: Ledger,
    batch: BatchRecord,
    failed: set[int],
    new: NewBatch,
    claim: Claim[BatchRecord] | None = None,
) -> BatchRecord:
    """Submit a new batch of these rows of another.

    An image that was never found, or was taken, is looked for where the manifest said. Raises as ``submit_batch``.
    """

    def rows() -> Iterator[Row]:
        for number, row in manifest_rows(ledger, batch):
            if number in failed:
                item = item_id(batch.id, number)
                known = ledger.if_readable(ledger.job, item)
                image = row.image if known and known.refused else f"job:{item}"
                yield row.model_copy(update={"image": image, "keeps_upload": False})

    return submit_batch(ledger, new, rows(), claim=claim)


def _committed(ledger: Ledger, mine: BatchRecord) -> BatchRecord:
    """Return the record that counts; where there is none, take away again what I brought."""
    try:
        return committed(ledger, mine)
    except (SubmissionAbandoned, SubmissionErased, IdempotencyConflict):
        ledger.store.delete_below(object_keys.submission(mine.id, mine.nonce))
        raise
