"""What may be wrong with the small objects: markers, webhooks, uploads, and what dead processes left.

An erasure's marker that can't be read still says that somebody was allowed to erase this job, so it is brought to
its end; only where there is nothing to erase, as its client was told that it failed, does it go.
"""

from collections.abc import Iterator
from functools import partial

from emx_shared.api_keys import ACCESS, KeyRing
from emx_shared.ledger import object_keys
from emx_shared.ledger.batches.batch_erasure import end_batch_erasure
from emx_shared.ledger.batches.items import restore_item, rows_with_jobs
from emx_shared.ledger.batches.manifest_pages import item_id
from emx_shared.ledger.damage import damaged_batch, damaged_job
from emx_shared.ledger.jobs.abandonment import abandon
from emx_shared.ledger.jobs.erasure import announce_erasure, end_erasure
from emx_shared.ledger.jobs.finish import finish
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import (
    BatchRecord,
    Delivery,
    Erasing,
    JobRecord,
    OpenMarker,
    Record,
    Tombstone,
    is_whole,
    tombstone_of,
)
from emx_shared.ledger.scrub.faults import Fault, FaultKind
from emx_shared.ledger.scrub.view import Look, View
from emx_shared.ledger.uploads import use_up
from emx_shared.store.base import Entry


def faults_of_open_marker(view: View, entry: Entry) -> Iterator[Fault]:
    """Yield what is wrong with an open marker: what it is of may never have been accepted, or have ended."""
    ledger, id = view.ledger, entry.key.removeprefix(object_keys.OPEN)
    marker, record = view.look(entry.key, OpenMarker.load), view.record(id)
    if marker.fault and marker.fault.kind is FaultKind.NEWER:
        yield marker.fault
    elif marker.fault or marker.cut:
        yield Fault(FaultKind.OPEN_MARKER, entry.key, partial(_write_marker, ledger, id, record.value))
    outcome = view.outcome(id)
    if record.fault or outcome.fault:
        return
    if isinstance(record.value, Tombstone) and record.value.why == "abandoned":
        yield Fault(FaultKind.UNCOMMITTED, entry.key, partial(abandon, ledger, id))
    elif record.value is None and outcome.value is None and view.is_old(entry):
        yield from _uncommitted(view, entry, id, marker.value, record)
    elif record.value and outcome.value and view.ended_long_ago(outcome.value):
        yield Fault(FaultKind.STILL_OPEN, entry.key, partial(finish, ledger, id, outcome.value))


def _uncommitted(
    view: View, entry: Entry, id: str, marker: OpenMarker | None, record: Look[Record]
) -> Iterator[Fault]:
    ledger = view.ledger
    batch = view.record(marker.batch).value if marker and marker.batch else None
    if isinstance(batch, BatchRecord) and view.outcome(batch.id).value is None:
        row = next((row for row in rows_with_jobs(ledger, batch) if item_id(batch.id, row) == id), None)
        if record.cut and row is not None:
            yield Fault(FaultKind.ITEM_LOST, record.key, partial(restore_item, ledger, batch, row))
    elif record.cut:
        yield Fault(FaultKind.RECORD_CUT, record.key, partial(abandon, ledger, id))
    elif (ledger.now() - entry.modified).total_seconds() > ledger.settings.abandon_after:
        yield Fault(FaultKind.UNCOMMITTED, entry.key, partial(abandon, ledger, id))


def _write_marker(ledger: Ledger, id: str, record: Record | None) -> None:
    place = record.item if isinstance(record, JobRecord) else None
    marker = OpenMarker(batch=place.batch if place else None)
    ledger.store.put(object_keys.open_marker(id), marker.dump())


def faults_of_erasure(view: View, entry: Entry) -> Iterator[Fault]:
    """Yield an erasure that stopped."""
    if not view.is_old(entry):
        return
    id = entry.key.removeprefix(object_keys.ERASE)
    erasing = view.look(entry.key, Erasing.load)
    if erasing.fault and erasing.fault.kind is FaultKind.NEWER:
        yield erasing.fault
    elif erasing.there:
        yield Fault(FaultKind.ERASURE_STOPPED, entry.key, partial(_erase, view.ledger, id, erasing.value))


def _erase(ledger: Ledger, id: str, erasing: Erasing | None) -> None:
    if erasing is None:
        now = ledger.now()
        record = damaged_job(ledger, id, now) or damaged_batch(ledger, id, now) or ledger.record(id)
        if record is None:
            ledger.store.delete(object_keys.erasing(id))
            return
        erasing = Erasing(tombstone=tombstone_of(record))
        announce_erasure(ledger, erasing.tombstone)
    end = end_batch_erasure if erasing.tombstone.of == "batch" else end_erasure
    end(ledger, id)


def faults_of_group_marker(view: View, entry: Entry) -> Iterator[Fault]:
    """Yield a marker by which a study or a patient would find a job that isn't theirs, or none."""
    id = entry.key.rpartition("/")[2]
    if not view.is_old(entry) or view.is_being_erased(id):
        return
    record = view.record(id)
    if isinstance(record.value, JobRecord):
        stray = entry.key not in object_keys.groups(record.value)
    else:
        stray = record.value is not None or not (record.there or view.is_open(id))
    if stray:
        yield view.deletion(FaultKind.STRAY_GROUP, entry.key)


def faults_of_feedback_marker(view: View, entry: Entry) -> Iterator[Fault]:
    """Yield a marker of feedback whose job is gone, or another tenant's. A job without feedback may have one."""
    tenant, _, id = entry.key.removeprefix(object_keys.FEEDBACK).rpartition("/")
    if not view.is_old(entry) or view.is_being_erased(id):
        return
    record = view.record(id)
    if isinstance(record.value, JobRecord):
        stray = record.value.tenant != tenant
    else:
        stray = record.value is not None or not (record.there or view.outcome(id).there)
    if stray:
        yield view.deletion(FaultKind.STRAY_FEEDBACK, entry.key)


def faults_of_unread_marker(view: View, entry: Entry) -> Iterator[Fault]:
    """Yield a marker that says of a batch that it has rows without a job, and there is no such batch."""
    id = entry.key.rpartition("/")[2]
    if not view.is_old(entry) or view.is_being_erased(id):
        return
    record = view.record(id)
    if isinstance(record.value, Tombstone) or not (record.there or view.is_open(id)):
        yield view.deletion(FaultKind.STALE_MARKER, entry.key)


def faults_of_delivery(view: View, entry: Entry) -> Iterator[Fault]:
    """Yield a webhook's record that can't be read."""
    found = view.look(entry.key, Delivery.load)
    if found.fault:
        yield found.fault
    elif found.cut:
        yield Fault(FaultKind.DELIVERY_CUT, entry.key, partial(_drop_if_cut, view, entry.key))


def _drop_if_cut(view: View, key: str) -> None:
    """Delete the record, unless finishing its job has written it anew."""
    if view.look(key, Delivery.load).cut:
        view.ledger.store.delete(key)


def faults_of_upload(view: View, entry: Entry) -> Iterator[Fault]:
    """Yield an upload whose image a job has."""
    tenant, _, id = entry.key.removeprefix(object_keys.UPLOADS).partition("/")
    if view.is_old(entry) and view.ledger.store.exists(object_keys.used_upload(tenant, id)):
        yield Fault(FaultKind.UPLOAD_LEFT, entry.key, partial(use_up, view.ledger, tenant, id))


def faults_of_probe(view: View, entry: Entry) -> Iterator[Fault]:
    """Yield what a process left that tried the store."""
    if view.is_old(entry):
        yield view.deletion(FaultKind.PROBE, entry.key)


def faults_of_key(view: View, entry: Entry) -> Iterator[Fault]:
    """Yield an API key that can't be read."""
    if KeyRing(view.ledger.store).get(entry.key.removeprefix(ACCESS)) is None:
        yield Fault(FaultKind.KEY_DAMAGED, entry.key)


def faults_of_secrets(view: View, entry: Entry) -> Iterator[Fault]:
    """Yield a tenant's signing secrets that were cut."""
    if not is_whole(view.ledger.store.get(entry.key)):
        yield Fault(FaultKind.KEY_DAMAGED, entry.key)
