"""Erase: image, report and feedback go for good; that there was a job stays."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime

from emx_shared.contracts.states import JobState
from emx_shared.ledger import object_keys
from emx_shared.ledger.batches.items import ended_items_of_page
from emx_shared.ledger.batches.manifest_pages import drop_other_submissions, forget_rows, item_id, readable_rows
from emx_shared.ledger.damage import damaged_batch, damaged_job
from emx_shared.ledger.jobs.delivery import forget_addresses
from emx_shared.ledger.jobs.feedback import erase_feedback
from emx_shared.ledger.jobs.finish import cancel
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import (
    ROWS_PER_PAGE,
    BatchPlace,
    BatchRecord,
    Erasing,
    JobRecord,
    Outcome,
    Tombstone,
    UnreadableRecord,
    tombstone_of,
)
from emx_shared.store import NoSuchObject


def erase(ledger: Ledger, job: str) -> None:
    """Erase one job, also one whose own objects are damaged.

    Safe to repeat: no late report can come back, because the outcome is settled first.
    """
    if record := damaged_job(ledger, job, ledger.now()) or ledger.record(job):
        announce_erasure(ledger, tombstone_of(record))
    end_erasure(ledger, job)


def announce_erasure(ledger: Ledger, tombstone: Tombstone) -> None:
    """Settle that a job or a batch will be erased, whoever stops from now on."""
    ledger.store.put(object_keys.erasing(tombstone.id), Erasing(tombstone=tombstone).dump())


def end_erasure(ledger: Ledger, id: str) -> None:
    """Erase what an erasure was announced of. Safe to stop and repeat anywhere."""
    erasing = ledger.erasing(id)
    if erasing is None:
        return
    store, tombstone = ledger.store, erasing.tombstone
    make_readable(ledger, tombstone)
    ledger.write_once(object_keys.record(id), tombstone.dump())  # whoever is about to submit it comes too late
    record = ledger.record(id) or tombstone
    if not isinstance(record, Tombstone):
        with suppress(UnreadableRecord):
            forget_addresses(ledger, record)
    cancel(ledger, id)
    store.delete_below(object_keys.inputs(id))
    erase_feedback(ledger, record.tenant, id)
    for group in object_keys.groups(record):
        store.delete(group)
    ledger.redis.listings.remove_job(record.tenant, id)
    ledger.redis.live_text.forget(id)
    tombstone = tombstone_of(record)
    with suppress(UnreadableRecord):
        _forget_row(ledger, tombstone)
    store.put(object_keys.record(id), tombstone.dump())
    erased = Outcome(state=JobState.CANCELLED, erased=True, finished_at=store.now())
    store.put(object_keys.outcome(id), erased.dump())
    store.delete(object_keys.erasing(id))


def make_readable(ledger: Ledger, tombstone: Tombstone) -> None:
    """Replace what can't be read of a job or a batch by what it still tells, by which all of it is found."""
    store, id, place = ledger.store, tombstone.id, tombstone.item
    if tombstone.of == "batch":
        damaged: JobRecord | BatchRecord | None = damaged_batch(ledger, id, tombstone.submitted_at)
    elif damaged := damaged_job(ledger, id, tombstone.submitted_at):
        place = damaged.item or place
        damaged = damaged.model_copy(update={"item": place})
    if damaged:
        store.put(object_keys.record(id), damaged.dump())
    try:
        ledger.outcome(id)
    except UnreadableRecord:
        counted = bool(place and place.row in ended_items_of_page(ledger, place.batch, place.row // ROWS_PER_PAGE))
        lost = Outcome(state=JobState.CANCELLED, finished_at=store.now(), erased=counted)
        store.put(object_keys.outcome(id), lost.dump())


def erase_group(ledger: Ledger, tenant: str, kind: str, name: str) -> int:
    """Erase all jobs of a study or a patient, rows of batches that have no job yet included.

    Args:
        ledger: where they are.
        tenant: whose they are.
        kind: ``study`` or ``patient``.
        name: the client's name for it.

    Returns:
        How many were erased. If this is stopped half-way, anyone may finish it.
    """
    prefix, now = object_keys.group(tenant, kind, name), ledger.now()
    unread = list(unread_rows(ledger, tenant, kind, name))
    items = [item_tombstone(batch, row, now) for batch, rows in unread for row in rows]
    tombstones = {item.id: item for item in items}
    for entry in list(ledger.store.list(prefix)):
        job = entry.key.removeprefix(prefix)
        record = ledger.if_readable(ledger.job, job)
        if record and entry.key not in object_keys.groups(record):  # of a submission that lost to another
            ledger.store.delete(entry.key)
            continue
        tombstones.setdefault(job, Tombstone(why="erased", id=job, tenant=tenant, submitted_at=now))
    for tombstone in tombstones.values():
        announce_erasure(ledger, tombstone)
    for batch, rows in unread:
        forget_rows(ledger, batch, rows)
    for job in tombstones:
        end_erasure(ledger, job)
        ledger.store.delete(prefix + job)  # of an abandoned job, nothing else names it
    _end_others(ledger, tenant)
    return len(tombstones)


def item_tombstone(batch: BatchRecord, row: int, now: datetime) -> Tombstone:
    """Return the tombstone of a batch's row, whether it has a job or not."""
    return Tombstone(
        why="erased",
        id=item_id(batch.id, row),
        tenant=batch.tenant,
        submitted_at=now,
        item=BatchPlace(batch=batch.id, row=row),
    )


def _end_others(ledger: Ledger, tenant: str) -> None:
    """Finish erasures that were stopped half-way, of which no marker and no row is left to find them by."""
    for entry in list(ledger.store.list(object_keys.ERASE)):
        job = entry.key.removeprefix(object_keys.ERASE)
        erasing = ledger.if_readable(ledger.erasing, job)
        if erasing and erasing.tombstone.tenant == tenant and erasing.tombstone.of == "job":
            end_erasure(ledger, job)


def unread_rows(ledger: Ledger, tenant: str, kind: str, name: str) -> Iterator[tuple[BatchRecord, list[int]]]:
    """Yield the rows of a study or a patient in each batch that may have rows without a job.

    Of a batch whose record is damaged, the rows are found by what it still tells.
    """
    prefix = object_keys.unread_batches(tenant)
    for entry in list(ledger.store.list(prefix)):
        id = entry.key.removeprefix(prefix)
        damaged = damaged_batch(ledger, id, entry.modified, tenant)
        record = damaged or ledger.record(id)
        if record is None:
            continue
        if not isinstance(record, BatchRecord):
            ledger.store.delete(entry.key)
            continue
        if not damaged:
            drop_other_submissions(ledger, record)
        with suppress(NoSuchObject):  # the whole batch is being erased
            rows = [number for number, row in readable_rows(ledger, record) if getattr(row, kind) == name]
            yield record, rows


def _forget_row(ledger: Ledger, tombstone: Tombstone) -> None:
    batch = ledger.batch(tombstone.item.batch) if tombstone.item else None
    if batch and tombstone.item and not ledger.erasing(batch.id):
        forget_rows(ledger, batch, [tombstone.item.row])
