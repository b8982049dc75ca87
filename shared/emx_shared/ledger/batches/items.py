"""The items of a batch: one job for each row of its manifest, submitted by the courier, a window at a time."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from emx_shared.contracts.states import JobState
from emx_shared.imaging import NotAnImage, media_type
from emx_shared.ledger import object_keys
from emx_shared.ledger.batches.manifest_pages import ERASED_ROW, item_id, manifest_rows
from emx_shared.ledger.jobs.finish import cancel, refuse
from emx_shared.ledger.jobs.submission import NewJob, commit_job
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import BatchPlace, BatchRecord, Failure, JobRecord, Row
from emx_shared.ledger.submission_errors import IdempotencyConflict, SubmissionAbandoned, SubmissionErased
from emx_shared.ledger.uploads import use_up
from emx_shared.store import NoSuchObject

_CURSOR_SAVED_EVERY = 50
"""Rows."""


def submit_items(ledger: Ledger, batch: BatchRecord, end: int) -> None:
    """Submit the rows before ``end``. The cursor is behind at worst: an item submitted twice is one item."""
    next_row = cursor(ledger, batch.id)
    for number, row in manifest_rows(ledger, batch, next_row):
        if number >= end or ledger.outcome(batch.id) or is_paused(ledger, batch):
            break
        _submit_item(ledger, batch, number, row)
        next_row = number + 1
        if next_row % _CURSOR_SAVED_EVERY == 0:
            _save_cursor(ledger, batch.id, next_row)
    _save_cursor(ledger, batch.id, next_row)


def cursor(ledger: Ledger, batch: str) -> int:
    """Return how many rows were submitted at least."""
    try:
        return int(ledger.store.get(object_keys.cursor(batch)))
    except NoSuchObject:
        return 0


def is_paused(ledger: Ledger, batch: BatchRecord) -> bool:
    """Return whether the batch is paused."""
    if batch.starts_paused and not ledger.store.exists(object_keys.resumed(batch.id)):
        return True
    return ledger.store.exists(object_keys.paused(batch.id))


def ended_items(ledger: Ledger, batch: str) -> dict[int, JobState]:
    """Return the state of each row that has ended."""
    return _states(ledger, object_keys.done_markers(batch))


def ended_items_of_page(ledger: Ledger, batch: str, page: int) -> dict[int, JobState]:
    """Return the state of each row that has ended, in one page of the manifest."""
    return _states(ledger, object_keys.done_markers_of_page(batch, page))


def ends_of_page(ledger: Ledger, batch: str, page: int) -> dict[int, tuple[datetime, JobState]]:
    """Return when each row of a page has ended, by the store's clock, and in which state."""
    entries = ledger.store.list(object_keys.done_markers_of_page(batch, page))
    found = ((entry.modified, object_keys.read_done_marker(entry.key)) for entry in entries)
    return {row: (at, state) for at, (row, state) in found}


def rows_with_jobs(ledger: Ledger, batch: BatchRecord) -> range:
    """Return the rows that may already have a job: up to 50 too many, since the cursor is saved every 50 rows."""
    return range(min(cursor(ledger, batch.id) + _CURSOR_SAVED_EVERY, batch.rows))


def cancel_items(ledger: Ledger, batch: BatchRecord) -> None:
    """Cancel every item that has a job and hasn't ended."""
    ended = ended_items(ledger, batch.id)
    for row in rows_with_jobs(ledger, batch):
        item = ledger.job(item_id(batch.id, row)) if row not in ended else None
        if item:
            cancel(ledger, item.id)


def awaited_uploads(ledger: Ledger) -> Iterator[str]:
    """Yield the keys of the uploads that open batches will submit."""
    for entry in list(ledger.store.list(object_keys.UNREAD)):
        batch = ledger.batch(entry.key.rpartition("/")[2])
        if batch and ledger.outcome(batch.id) is None:
            for _, row in manifest_rows(ledger, batch, cursor(ledger, batch.id)):
                if row.image.startswith("upload:"):
                    yield _image_key(ledger, batch, row)


def _save_cursor(ledger: Ledger, batch: str, next_row: int) -> None:
    ledger.store.put(object_keys.cursor(batch), str(next_row).encode())


def _states(ledger: Ledger, prefix: str) -> dict[int, JobState]:
    return dict(object_keys.read_done_marker(entry.key) for entry in ledger.store.list(prefix))


def _submit_item(ledger: Ledger, batch: BatchRecord, number: int, row: Row) -> None:
    item = item_id(batch.id, number)
    known = ledger.record(item)
    if known:
        _drop_upload(ledger, batch, row)
        if isinstance(known, JobRecord) and known.refused:
            refuse(ledger, known)
        return
    if row == ERASED_ROW:
        return
    new = NewJob(
        data=b"",
        media_type="application/octet-stream",
        tenant=batch.tenant,
        priority=batch.priority,
        webhook_url=batch.item_webhook_url,
        metadata=row.metadata,
        study=row.study,
        patient=row.patient,
        indication=row.indication,
        request_id=batch.request_id,
        id=item,
        item=BatchPlace(batch=batch.id, row=number, name=row.name),
    )
    try:
        _commit_item(ledger, batch, item, row, new)
    except (SubmissionAbandoned, SubmissionErased):  # the batch has ended, or the row was erased, meanwhile
        return
    except IdempotencyConflict:  # another courier was quicker, and has deleted the upload since
        return


def _commit_item(ledger: Ledger, batch: BatchRecord, item: str, row: Row, new: NewJob) -> None:
    """Commit an item, or commit its refusal. Raises SubmissionAbandoned, SubmissionErased, StoreError."""
    found = _image(ledger, batch, row)
    if isinstance(found, Failure):
        changes = {"refused": found, "input_sha256": "", "media_type": ""}
        refused = commit_job(ledger, new.record(ledger, item).model_copy(update=changes), None)
        _drop_upload(ledger, batch, row)
        refuse(ledger, refused)
        return
    data, kind = found
    new = replace(new, data=data, media_type=kind)
    ledger.enqueue(commit_job(ledger, new.record(ledger, item), data))
    _drop_upload(ledger, batch, row)


def _drop_upload(ledger: Ledger, batch: BatchRecord, row: Row) -> None:
    """Delete a row's upload, whose image its job has now, unless a later row needs it."""
    if row.image.startswith("upload:") and not row.keeps_upload:
        use_up(ledger, batch.tenant, row.image.removeprefix("upload:"))


def _image(ledger: Ledger, batch: BatchRecord, row: Row) -> tuple[bytes, str] | Failure:
    """Return the image that a row names with its media type, or why it can't be read."""
    try:
        key = _image_key(ledger, batch, row)
        if ledger.store.size(key) > ledger.settings.max_upload_bytes:
            return Failure(code="image-too-large", message="The image has more bytes than are accepted.")
        data = ledger.store.get(key)
        return data, media_type(data)
    except NotAnImage as error:
        return Failure(code="not-an-image", message=str(error))
    except (NoSuchObject, ValueError):  # or what can't be a key
        return Failure(code="no-image", message="There is no image where the manifest says.")


def _image_key(ledger: Ledger, batch: BatchRecord, row: Row) -> str:
    """Return the key of a row's image. Raises NoSuchObject for a job that was erased or is another tenant's."""
    kind, _, where = row.image.partition(":")
    if kind == "file":
        return object_keys.batch_input(batch.id, batch.nonce, where)
    if kind == "upload":
        return object_keys.upload(batch.tenant, where)
    if kind == "import":
        return object_keys.imported(batch.tenant, where)
    found = ledger.job(where) if kind == "job" else None
    if found is None or found.tenant != batch.tenant:
        raise NoSuchObject(where)
    return object_keys.job_input(where, found.input_sha256)
