"""What may be wrong below ``jobs/ID/``: records, outcomes, images.

What was cut there is judged by what its client was told:

- A record that was cut, without outcome: the client was not told that its submission counts (202 comes after the
  record), and nothing was read. It is given up, as the reconciler gives up a submission without record; the same
  idempotency key makes another job. A record that was accepted and cut since looks the same, and can't be made
  again either: its client finds that there is no such job. An item of a batch is submitted again instead, since
  its batch waits for it.
- A record that was cut or is missing, with an outcome: the job was accepted, and lost its record since. Tenant,
  metadata and webhook can't be told from what is left, so nothing is made up; the outcome stays for when the
  record is restored.
- An outcome that was cut counts as absent: the job is read again. Its webhook may come again, with the same id if
  the state is the same.
- Feedback that was cut counts as absent, and only a backup has it. Feedback of a job that was erased is erased as
  its image is; that of a job whose record is lost waits for the record.
- What is whole JSON and still can't be read is never changed, as only its writer may know what it means. It isn't
  moved aside either, since an erasure would not find it there.
"""

from collections.abc import Iterator
from functools import partial

from emx_shared.contracts.states import JobState
from emx_shared.ledger import object_keys
from emx_shared.ledger.batches.batch_progress import advance_batch
from emx_shared.ledger.batches.items import ended_items_of_page
from emx_shared.ledger.jobs.abandonment import abandon
from emx_shared.ledger.jobs.erasure import announce_erasure, end_erasure
from emx_shared.ledger.jobs.finish import finish, webhook_owed
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import (
    ROWS_PER_PAGE,
    BatchPlace,
    BatchRecord,
    Delivery,
    Feedback,
    JobRecord,
    OpenMarker,
    Outcome,
    Tombstone,
    tombstone_of,
)
from emx_shared.ledger.scrub.faults import Fault, FaultKind
from emx_shared.ledger.scrub.view import Look, View
from emx_shared.store.base import Entry


def faults_of_job(view: View, id: str, entries: list[Entry]) -> Iterator[Fault]:
    """Yield what is wrong with the objects of a job, or with the record and the outcome of a batch."""
    record = view.record(id)
    is_open = view.is_open(id)  # before the outcome, which comes before the marker goes
    outcome = view.outcome(id)
    if record.fault:
        yield record.fault
    if outcome.fault:
        yield outcome.fault
    if record.fault or outcome.fault:
        return
    images = [entry for entry in entries if entry.key.startswith(object_keys.inputs(id))]
    feedback = [entry for entry in entries if entry.key == object_keys.feedback(id)]
    if record.value is None:
        if view.is_old(*entries):
            yield from _without_record(view, id, record.there, is_open, outcome.value, images, feedback)
    elif isinstance(record.value, Tombstone):
        if view.is_old(*entries):
            yield from _of_tombstone(view, record.value, outcome.value, images, feedback)
    else:
        if isinstance(record.value, JobRecord):
            yield from _of_job(view, record.value, outcome.value, images)
            yield from _of_feedback(view, record.value, feedback)
        if not is_open:
            yield from _of_closed(view, record.value, outcome)
    known = {object_keys.record(id), object_keys.outcome(id), *(each.key for each in (*images, *feedback))}
    yield from (Fault(FaultKind.UNKNOWN, entry.key) for entry in entries if entry.key not in known)


def _without_record(
    view: View,
    id: str,
    cut: bool,
    is_open: bool,
    outcome: Outcome | None,
    images: list[Entry],
    feedback: list[Entry],
) -> Iterator[Fault]:
    if outcome:
        if not view.record(id).value:  # nor was it written, and ended, since it was looked at
            yield Fault(FaultKind.RECORD_LOST, object_keys.record(id))
    elif is_open:
        return  # judged by its open marker
    elif cut:
        yield Fault(FaultKind.RECORD_CUT, object_keys.record(id), partial(abandon, view.ledger, id))
    else:
        yield from (view.deletion(FaultKind.SURPLUS_IMAGE, image.key) for image in images)
        yield from (view.deletion(FaultKind.STRAY_FEEDBACK, entry.key) for entry in feedback)


def _of_tombstone(
    view: View, tombstone: Tombstone, outcome: Outcome | None, images: list[Entry], feedback: list[Entry]
) -> Iterator[Fault]:
    id, place = tombstone.id, tombstone.item
    if tombstone.why == "erased" and (images or feedback or outcome is None or not outcome.erased):
        if view.is_being_erased(id):
            return  # judged by its marker
        latest = view.outcome(id).value  # it may have been ended just now
        if images or feedback or latest is None or not latest.erased:
            yield Fault(FaultKind.ERASURE_STOPPED, object_keys.record(id), partial(_erase, view.ledger, tombstone))
    elif tombstone.why == "erased" and place and _is_uncounted(view, place):
        marker = object_keys.done_marker(place.batch, place.row // ROWS_PER_PAGE, place.row, JobState.CANCELLED)
        yield Fault(FaultKind.NOT_COUNTED, marker, partial(view.ledger.store.put_if_absent, marker, b""))
    elif tombstone.why == "abandoned":
        yield from (view.deletion(FaultKind.SURPLUS_IMAGE, image.key) for image in images)
        yield from (view.deletion(FaultKind.STRAY_FEEDBACK, entry.key) for entry in feedback)


def _is_uncounted(view: View, place: BatchPlace) -> bool:
    """Return whether a batch still waits for the end of this row."""
    if not isinstance(view.record(place.batch).value, BatchRecord) or view.outcome(place.batch).there:
        return False
    return place.row not in ended_items_of_page(view.ledger, place.batch, place.row // ROWS_PER_PAGE)


def _of_job(view: View, job: JobRecord, outcome: Outcome | None, images: list[Entry]) -> Iterator[Fault]:
    named = object_keys.job_input(job.id, job.input_sha256)
    for image in images:
        if image.key != named and view.is_old(image):
            yield view.deletion(FaultKind.SURPLUS_IMAGE, image.key)
    store = view.ledger.store
    if outcome is None and not job.refused and not store.exists(named) and not view.outcome(job.id).there:
        yield Fault(FaultKind.IMAGE_MISSING, named)
    for group in object_keys.groups(job):
        if not store.exists(group) and not view.is_being_erased(job.id):
            yield Fault(FaultKind.NOT_IN_GROUP, group, partial(store.put, group, b""))


def _of_feedback(view: View, job: JobRecord, feedback: list[Entry]) -> Iterator[Fault]:
    """Yield what is wrong with a job's feedback: what can't be read, and what lists would not find."""
    for entry in feedback:
        found = view.look(entry.key, Feedback.load)
        if found.fault:
            yield found.fault
        elif found.cut:
            yield Fault(FaultKind.FEEDBACK_CUT, entry.key)
        marker, store = object_keys.feedback_marker(job.tenant, job.id), view.ledger.store
        if found.there and not store.exists(marker) and not view.is_being_erased(job.id):
            yield Fault(FaultKind.FEEDBACK_NOT_LISTED, marker, partial(store.put, marker, b""))


def _of_closed(view: View, record: JobRecord | BatchRecord, outcome: Look[Outcome]) -> Iterator[Fault]:
    """Yield what is wrong with a job or a batch that nobody attends to. An open one is the reconciler's."""
    if outcome.value is None:
        kind = FaultKind.OUTCOME_CUT if outcome.cut else FaultKind.NOT_OPEN
        key = outcome.key if outcome.cut else object_keys.open_marker(record.id)
        yield Fault(kind, key, partial(_open, view.ledger, record))
    elif view.ended_long_ago(outcome.value):
        yield from _of_ended(view, record, outcome.value)


def _of_ended(view: View, record: JobRecord | BatchRecord, outcome: Outcome) -> Iterator[Fault]:
    """Yield what an outcome called for and hasn't got; finishing does all of it."""
    ledger, mend = view.ledger, partial(finish, view.ledger, record.id, outcome)
    owed = webhook_owed(record, outcome)
    if owed and not _is_known(view, owed.id):
        yield Fault(FaultKind.WEBHOOK_NOT_OWED, object_keys.outbox(owed.id), mend)
    place = record.item if isinstance(record, JobRecord) else None
    if place and isinstance(view.record(place.batch).value, BatchRecord) and not outcome.erased:
        marker = _done_marker(place, outcome)
        if not ledger.store.exists(marker):
            yield Fault(FaultKind.NOT_COUNTED, marker, mend)


def _is_known(view: View, delivery: str) -> bool:
    """Return whether a webhook is owed or has ended; a record that was cut counts as absent."""
    looks = (view.look(key(delivery), Delivery.load) for key in (object_keys.delivery, object_keys.outbox))
    return any(look.value or look.fault for look in looks)


def _done_marker(place: BatchPlace, outcome: Outcome) -> str:
    return object_keys.done_marker(place.batch, place.row // ROWS_PER_PAGE, place.row, outcome.state)


def _open(ledger: Ledger, record: JobRecord | BatchRecord) -> None:
    """Write an open marker, by which the reconciler finds a job; a batch is advanced as well."""
    place = record.item if isinstance(record, JobRecord) else None
    marker = OpenMarker(batch=place.batch if place else None)
    ledger.write_once(object_keys.open_marker(record.id), marker.dump())
    if isinstance(record, BatchRecord):
        advance_batch(ledger, record.id)


def _erase(ledger: Ledger, tombstone: Tombstone) -> None:
    announce_erasure(ledger, tombstone_of(tombstone))
    end_erasure(ledger, tombstone.id)
