"""Erase a batch: all its jobs, its manifest and the images that came with it."""

import uuid

from emx_shared.ledger import object_keys
from emx_shared.ledger.batches.items import rows_with_jobs
from emx_shared.ledger.batches.manifest_pages import item_id
from emx_shared.ledger.jobs.erasure import announce_erasure, end_erasure, item_tombstone, make_readable
from emx_shared.ledger.jobs.finish import cancel
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import BatchRecord, Outcome, tombstone_of


def erase_batch(ledger: Ledger, batch: BatchRecord) -> Outcome:
    """Settle that a batch will be erased; the courier erases its many jobs. Return how it had ended."""
    tombstone = tombstone_of(batch)
    announce_erasure(ledger, tombstone)
    make_readable(ledger, tombstone)
    outcome = cancel(ledger, batch.id)
    ledger.queue.erase_batch(batch.id)
    return outcome


def end_batch_erasure(ledger: Ledger, id: str) -> None:
    """Erase a batch whose erasure was announced. Safe to stop and repeat anywhere."""
    erasing = ledger.erasing(id)
    if erasing is None:
        return
    make_readable(ledger, erasing.tombstone)
    batch = ledger.batch(id)
    if batch:
        cancel(ledger, id)
        if not _erase_items(ledger, batch):
            return
        ledger.store.delete_below(object_keys.batch(id))
        ledger.store.delete(object_keys.unread_batch(batch.tenant, id))
        ledger.redis.listings.remove_batch(batch.tenant, id)
    end_erasure(ledger, id)


def _erase_items(ledger: Ledger, batch: BatchRecord) -> bool:
    """Erase all jobs of a batch that has ended. Return False if another courier is doing it."""
    lease, token = f"erasing:{batch.id}", uuid.uuid4().hex
    if not ledger.redis.leases.take(lease, token):
        return False
    now = ledger.now()
    for row in rows_with_jobs(ledger, batch):
        item = item_id(batch.id, row)
        outcome = ledger.if_readable(ledger.outcome, item)
        if outcome is None or not outcome.erased:
            announce_erasure(ledger, item_tombstone(batch, row, now))
            end_erasure(ledger, item)
        ledger.redis.leases.extend(lease, token)
    ledger.redis.leases.release(lease, token)
    return True
