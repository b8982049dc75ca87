"""What may be wrong below ``batches/ID/``: manifest, cursor, counts, files.

A page that was cut or is missing is made again of what is left: a row with a job gets what its job's record says,
an erased row stays erased, and a row without a job is lost. Its item fails as ``no-image``, as does any whose
image isn't where the manifest says. Its client may retry it, once the page was restored from a backup.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import partial

from emx_shared.contracts.states import JobState
from emx_shared.ledger import object_keys
from emx_shared.ledger.batches.batch_progress import advance_batch
from emx_shared.ledger.batches.items import cursor
from emx_shared.ledger.batches.manifest_pages import ERASED_ROW, LOST_ROW, item_id, rewriting
from emx_shared.ledger.jobs.finish import finish
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import (
    ROWS_PER_PAGE,
    BatchRecord,
    JobRecord,
    ManifestPage,
    Outcome,
    Row,
    Tombstone,
)
from emx_shared.ledger.scrub.faults import Fault, FaultKind
from emx_shared.ledger.scrub.view import View
from emx_shared.store.base import Entry


def faults_of_batch(view: View, id: str, entries: list[Entry]) -> Iterator[Fault]:
    """Yield what is wrong with what belongs to a batch, beside its record and its outcome."""
    record = view.record(id)
    if isinstance(record.value, BatchRecord):
        outcome = view.outcome(id)
        if not outcome.fault and not view.is_being_erased(id):
            yield from _of_submissions(view, record.value, outcome.value, entries)
            yield from _of_pages(view, record.value)
            yield from _of_cursor(view, record.value, outcome.value)
            yield from _of_unread_marker(view, record.value)
            yield from _of_counts(view, record.value, outcome.value, entries)
            yield from _unknown(id, entries)
    elif record.fault is None and view.is_old(*entries) and not view.is_open(id) and not view.is_being_erased(id):
        yield from _without_record(view, id, record.value is None, entries)


def _without_record(view: View, id: str, lost: bool, entries: list[Entry]) -> Iterator[Fault]:
    """Yield the files of a batch that isn't one any more. Where its courier had begun, it was accepted."""
    names = {entry.key.removeprefix(object_keys.batch(id)).partition("/")[0] for entry in entries}
    begun, manifest = "cursor" in names or "done" in names, any("/manifest-" in entry.key for entry in entries)
    if lost and (view.outcome(id).there or (begun and manifest)):
        if not view.record(id).value:  # nor was it written since it was looked at
            yield Fault(FaultKind.RECORD_LOST, object_keys.record(id))
    else:
        yield from (view.deletion(FaultKind.STRAY_BATCH_FILE, entry.key) for entry in entries)


def _of_submissions(
    view: View, batch: BatchRecord, outcome: Outcome | None, entries: list[Entry]
) -> Iterator[Fault]:
    prefix, mine = object_keys.submissions(batch.id), object_keys.submission(batch.id, batch.nonce)
    pages = object_keys.pages(batch.id, batch.nonce)
    for entry in entries:
        if not entry.key.startswith(prefix) or not view.is_old(entry):
            continue
        if not entry.key.startswith(mine):
            yield view.deletion(FaultKind.STRAY_BATCH_FILE, entry.key)
        elif outcome and view.ended_long_ago(outcome) and not entry.key.startswith(pages):
            mend = partial(finish, view.ledger, batch.id, outcome)
            yield Fault(FaultKind.SURPLUS_IMAGE, entry.key, mend)


def _of_pages(view: View, batch: BatchRecord) -> Iterator[Fault]:
    for number in range(-(-batch.rows // ROWS_PER_PAGE)):
        page = view.look(object_keys.page(batch.id, batch.nonce, number), ManifestPage.load)
        if page.fault:
            yield page.fault
        elif page.value is None:
            yield Fault(FaultKind.PAGE_LOST, page.key, partial(_restore_page, view.ledger, batch, number))


def _restore_page(ledger: Ledger, batch: BatchRecord, number: int) -> None:
    first = number * ROWS_PER_PAGE
    with rewriting(ledger, batch, number):  # else a row that is erased meanwhile would come back
        rows = [_restored(ledger, batch, row) for row in range(first, min(first + ROWS_PER_PAGE, batch.rows))]
        ledger.store.put(object_keys.page(batch.id, batch.nonce, number), ManifestPage(rows=tuple(rows)).dump())


def _restored(ledger: Ledger, batch: BatchRecord, row: int) -> Row:
    item = item_id(batch.id, row)
    record = ledger.if_readable(ledger.record, item)
    if isinstance(record, Tombstone) and record.why == "erased":
        return ERASED_ROW
    if not isinstance(record, JobRecord):
        return LOST_ROW
    return Row(
        image=LOST_ROW.image if record.refused else f"job:{item}",
        name=record.item.name if record.item else None,
        metadata=record.metadata,
        study=record.study,
        patient=record.patient,
        indication=record.indication,
    )


def _of_cursor(view: View, batch: BatchRecord, outcome: Outcome | None) -> Iterator[Fault]:
    """A batch that goes on writes its cursor by itself; of one that has ended, every row may have a job."""
    if cursor(view.ledger, batch.id) is None:
        key = object_keys.cursor(batch.id)
        written = partial(view.ledger.store.put, key, str(batch.rows).encode())
        yield Fault(FaultKind.CURSOR, key, written if outcome else partial(advance_batch, view.ledger, batch.id))


def _of_unread_marker(view: View, batch: BatchRecord) -> Iterator[Fault]:
    store, key = view.ledger.store, object_keys.unread_batch(batch.tenant, batch.id)
    if store.exists(key):
        return
    outcome = view.outcome(batch.id).value  # which comes before the marker goes
    if outcome is None or outcome.state != JobState.SUCCEEDED:
        yield Fault(FaultKind.NOT_IN_GROUP, key, partial(store.put, key, b""))


def _unknown(id: str, entries: list[Entry]) -> Iterator[Fault]:
    prefixes = (object_keys.submissions(id), object_keys.done_markers(id))
    known = {object_keys.cursor(id), object_keys.paused(id), object_keys.resumed(id)}
    for entry in entries:
        if entry.key not in known and not entry.key.startswith(prefixes):
            yield Fault(FaultKind.UNKNOWN, entry.key)


def _of_counts(view: View, batch: BatchRecord, outcome: Outcome | None, entries: list[Entry]) -> Iterator[Fault]:
    prefix = object_keys.done_markers(batch.id)
    states, unknown = _by_row(entry.key for entry in entries if entry.key.startswith(prefix))
    yield from (Fault(FaultKind.UNKNOWN, key) for key in unknown)
    for row, found in states.items():
        if len(found) > 1 and (item := view.outcome(item_id(batch.id, row)).value):
            for wrong in found - {item.state} if item.state in found else ():
                marker = object_keys.done_marker(batch.id, row // ROWS_PER_PAGE, row, wrong)
                yield view.deletion(FaultKind.COUNTED_TWICE, marker)
    if outcome is None or outcome.counts is None or any(len(found) > 1 for found in states.values()):
        return
    counts = Counter(outcome.counts)
    if _counts(states) == counts:
        return
    # The entries were listed before the outcome was read: rows may have ended in between.
    states, _ = _by_row(entry.key for entry in view.ledger.store.list(prefix))
    if _counts(states) != counts:
        yield Fault(FaultKind.COUNTS_DIFFER, object_keys.outcome(batch.id))


def _by_row(markers: Iterable[str]) -> tuple[dict[int, set[JobState]], list[str]]:
    """Return the states that done-markers give to each row, and the keys that aren't a done-marker's."""
    states: dict[int, set[JobState]] = defaultdict(set)
    unknown: list[str] = []
    for key in markers:
        try:
            row, state = object_keys.read_done_marker(key)
        except ValueError:
            unknown.append(key)
        else:
            states[row].add(state)
    return states, unknown


def _counts(states: dict[int, set[JobState]]) -> Counter[str]:
    return Counter(str(state) for found in states.values() for state in found)
