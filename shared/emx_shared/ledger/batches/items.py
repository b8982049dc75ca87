"""The items of a batch: one job for each row of its manifest, submitted by the courier, a window at a time."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from emx_shared.contracts.states import JobState
from emx_shared.imaging import NotAnImage, media_type
from emx_shared.ledger import object_keys
from emx_shared.ledger.batches.manifest_pages import ERASED_ROW, item_id, manifest_rows
from emx_shared.ledger.jobs.finish import cancel, refuse
from emx_shared.ledger.jobs.submission import NewJob, commit_job
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import BatchPlace, BatchRecord, Failure, JobRecord, Row, UnreadableRecord
from emx_shared.ledger.submission_errors import IdempotencyConflict, SubmissionAbandoned, SubmissionErased
from emx_shared.ledger.uploads import use_up
from emx_shared.store import NoSuchObject

_CURSOR_SAVED_EVERY = 50
"""Rows."""


def submit_items(ledger: Ledger, batch: BatchRecord, end: int) -> None:
    """Submit the rows before ``end``. The cursor is behind at worst: an item submitted twice is one item."""
    next_row = cursor(ledger, batch.id) or 0
    for number, row in manifest_rows(ledger, batch, next_row):
        if number >= end or ledger.outcome(batch.id) or is_paused(ledger, batch):
            break
        _submit_item(ledger, batch, number, row)
        next_row = number + 1
        if next_row % _CURSOR_SAVED_EVERY == 0:
            _save_cursor(ledger, batch.id, next_row)
    _save_cursor(ledger, batch.id, next_row)


def cursor(ledger: Ledger, batch: str) -> int | None:
    """Return how many rows were submitted at least; None where the object that says so is damaged."""
    try:
        return int(ledger.store.get(object_keys.cursor(batch)))
    except NoSuchObject:
        return 0
    except ValueError:
        return None


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
    """Return the rows that may already have a job: up to 50 too many, since the cursor is saved every 50 rows.

    Where the cursor is damaged, every row may have one.
    """
    submitted = cursor(ledger, batch.id)
    return range(batch.rows if submitted is None else min(submitted + _CURSOR_SAVED_EVERY, batch.rows))


def cancel_items(ledger: Ledger, batch: BatchRecord) -> None:
    """Cancel every item that has a job and hasn't ended."""
    ended = ended_items(ledger, batch.id)
    for row in rows_with_jobs(ledger, batch):
        if row in ended:
            continue
        with suppress(UnreadableRecord):  # that item waits for whoever can read it; the others don't
            if item := ledger.job(item_id(batch.id, row)):
                cancel(ledger, item.id)


def awaited_uploads(ledger: Ledger) -> Iterator[str]:
    """Yield the keys of the uploads that open batches will submit.

    A batch that can't be read may wait for any of its tenant's.
    """
    for entry in list(ledger.store.list(object_keys.UNREAD)):
        tenant, _, id = entry.key.removeprefix(object_keys.UNREAD).partition("/")
        try:
            with suppress(NoSuchObject):  # it is being erased
                yield from _awaited_by(ledger, id)
        except UnreadableRecord:
            yield from (upload.key for upload in ledger.store.list(object_keys.uploads(tenant)))


def _awaited_by(ledger: Ledger, id: str) -> Iterator[str]:
    batch = ledger.batch(id)
    if batch and ledger.outcome(id) is None:
        for _, row in manifest_rows(ledger, batch, cursor(ledger, id) or 0):
            if row.image.startswith("upload:"):
                yield _image_key(ledger, batch, row)


def _save_cursor(ledger: Ledger, batch: str, next_row: int) -> None:
    ledger.store.put(object_keys.cursor(batch), str(next_row).encode())


def _states(ledger: Ledger, prefix: str) -> dict[int, JobState]:
    return dict(object_keys.read_done_marker(entry.key) for entry in ledger.store.list(prefix))


def restore_item(ledger: Ledger, batch: BatchRecord, number: int) -> None:
    """Submit an item again whose record was cut, with the image that it had, or the one that its row names."""
    item = item_id(batch.id, number)
    _, row = next(manifest_rows(ledger, batch, number))
    had = [entry.key for entry in ledger.store.list(object_keys.inputs(item))]
    for key in had:
        data = ledger.store.get(key)
        if key == object_keys.job_input(item, hashlib.sha256(data).hexdigest()):
            new = replace(_new_item(batch, number, row), data=data, media_type=media_type(data))
            ledger.enqueue(commit_job(ledger, new.record(ledger, item), data))
            return
    _submit_item(ledger, batch, number, row)


def _submit_item(ledger: Ledger, batch: BatchRecord, number: int, row: Row) -> None:
    item = item_id(batch.id, number)
    try:
        known = ledger.record(item)
    except UnreadableRecord:  # it has its job; those after it go on
        return
    if known:
        _drop_upload(ledger, batch, row)
        if isinstance(known, JobRecord) and known.refused:
            refuse(ledger, known)
        return
    if row == ERASED_ROW:
        return
    new = _new_item(batch, number, row)
    try:
        _commit_item(ledger, batch, item, row, new)
    except (SubmissionAbandoned, SubmissionErased):  # the batch has ended, or the row was erased, meanwhile
        return
    except IdempotencyConflict:  # another courier was quicker, and has deleted the upload since
        return


def _new_item(batch: BatchRecord, number: int, row: Row) -> NewJob:
    """Return a row's job, without its image."""
    return NewJob(
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
        id=item_id(batch.id, number),
        item=BatchPlace(batch=batch.id, row=number, name=row.name),
    )


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
    """Return the key of a row's image.

    Raises:
        NoSuchObject: it is a job that was erased, can't be read, or is another tenant's; or the row is lost.
    """
    kind, _, where = row.image.partition(":")
    if kind == "file":
        return object_keys.batch_input(batch.id, batch.nonce, where)
    if kind == "upload":
        return object_keys.upload(batch.tenant, where)
    if kind == "import":
        return object_keys.imported(batch.tenant, where)
    found = ledger.if_readable(ledger.job, where) if kind == "job" else None
    if found is None or found.tenant != batch.tenant:
        raise NoSuchObject(where)
    return object_keys.job_input(where, found.input_sha256)
