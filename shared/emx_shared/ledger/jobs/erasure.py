"""Erase: image and report go for good; that there was a job stays."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime

from emx_shared.ledger import object_keys
from emx_shared.ledger.batches.manifest_pages import drop_others, forget_rows, item_id, manifest
from emx_shared.ledger.jobs.finish import cancel
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import Erasing, Outcome, Request
from emx_shared.store import NotFound


def erase(ledger: Ledger, job: str) -> None:
    """Safe to repeat. No late report can come back, because the job's outcome is settled first."""
    if request := ledger.request(job):
        announce_erasure(ledger, _tombstone(request))
    end_erasure(ledger, job)


def announce_erasure(ledger: Ledger, tombstone: Request) -> None:
    """From now on the job will be erased, whoever stops."""
    ledger.store.put(object_keys.erasing(tombstone.id), Erasing(tombstone=tombstone).dump())


def end_erasure(ledger: Ledger, job: str) -> None:
    """Erase a job whose erasure was announced."""
    erasing = ledger.erasing(job)
    if erasing is None:
        return
    store, tombstone = ledger.store, erasing.tombstone
    store.put_if_absent(object_keys.request(job), tombstone.dump())  # whoever is about to submit it comes too late
    request = ledger.request(job) or tombstone
    cancel(ledger, job)
    store.delete_below(object_keys.inputs(job))
    for marker in object_keys.groups(request):
        store.delete(marker)
    ledger.redis.listings.remove_job(request.tenant, job)
    _forget_row(ledger, request)
    store.put(object_keys.request(job), _tombstone(request).dump())
    store.put(object_keys.outcome(job), Outcome(kind="erased", finished_at=store.now()).dump())
    store.delete(object_keys.erasing(job))


def erase_group(ledger: Ledger, tenant: str, kind: str, name: str) -> int:
    """Erase all jobs of a study or a patient, those of batches that no job was made of yet included.

    Returns how many. Once it has begun, it is ended by anyone.
    """
    prefix, now = object_keys.group(tenant, kind, name), ledger.store.now()
    unread = list(_unread_rows(ledger, tenant, kind, name))
    items = [item_tombstone(batch, row, now) for batch, rows in unread for row in rows]
    tombstones = {item.id: item for item in items}
    for entry in list(ledger.store.list(prefix)):
        job = entry.key.removeprefix(prefix)
        tombstones.setdefault(job, Request(id=job, status="erased", tenant=tenant, submitted_at=now))
    for tombstone in tombstones.values():
        announce_erasure(ledger, tombstone)
    for batch, rows in unread:
        forget_rows(ledger, batch, rows)
    for job in tombstones:
        end_erasure(ledger, job)
        ledger.store.delete(prefix + job)  # of an abandoned job, nothing else names it
    _end_others(ledger, tenant)
    return len(tombstones)


def _end_others(ledger: Ledger, tenant: str) -> None:
    """What an erasure that was stopped half-way left, of which no marker and no row tells any more."""
    for entry in list(ledger.store.list(object_keys.ERASE)):
        job = entry.key.removeprefix(object_keys.ERASE)
        erasing = ledger.erasing(job)
        if erasing and erasing.tombstone.tenant == tenant and erasing.tombstone.kind == "job":
            end_erasure(ledger, job)


def item_tombstone(batch: Request, row: int, now: datetime) -> Request:
    return Request(
        id=item_id(batch.id, row),
        status="erased",
        tenant=batch.tenant,
        submitted_at=now,
        batch=batch.id,
        row=row,
    )


def _unread_rows(ledger: Ledger, tenant: str, kind: str, name: str) -> Iterator[tuple[Request, list[int]]]:
    """Rows of the group in each batch that may have rows without a job."""
    prefix = object_keys.unread_batches(tenant)
    for entry in list(ledger.store.list(prefix)):
        batch = ledger.request(entry.key.removeprefix(prefix))
        if batch is None:
            continue
        if batch.status != "committed":
            ledger.store.delete(entry.key)
            continue
        drop_others(ledger, batch)
        with suppress(NotFound):  # the whole batch is being erased
            yield batch, [number for number, row in manifest(ledger, batch) if getattr(row, kind) == name]


def _forget_row(ledger: Ledger, item: Request) -> None:
    batch = ledger.request(item.batch) if item.batch else None
    if batch and batch.status == "committed" and item.row is not None and not ledger.erasing(batch.id):
        forget_rows(ledger, batch, [item.row])


def _tombstone(request: Request) -> Request:
    return Request(
        id=request.id,
        kind=request.kind,
        status="erased",
        tenant=request.tenant,
        submitted_at=request.submitted_at,
        batch=request.batch,
        row=request.row,
    )
