"""The items of a batch: one job for each row of its manifest, submitted by the courier, a window at a time."""

import uuid
from collections.abc import Iterator
from dataclasses import replace

from emx_shared.imaging import NotAnImage, media_type
from emx_shared.ledger import object_keys
from emx_shared.ledger.batches.manifest_pages import ERASED, item_id, manifest
from emx_shared.ledger.jobs.erasure import announce_erasure, end_erasure, item_tombstone
from emx_shared.ledger.jobs.finish import cancel, refuse
from emx_shared.ledger.jobs.submission import Abandoned, NewJob, WasErased, commit
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import Failure, Request, Row
from emx_shared.store import NotFound

_NOTED_EVERY = 50
"""Rows after which the cursor is written."""


def submit_items(ledger: Ledger, request: Request, end: int) -> None:
    """Submit the rows before ``end``. The cursor is behind at worst: an item submitted twice is one item."""
    batch, begun = request.id, cursor(ledger, request.id)
    for number, row in manifest(ledger, request, begun):
        if number >= end or ledger.outcome(batch) or is_paused(ledger, batch):
            break
        _submit_item(ledger, request, number, row)
        begun = number + 1
        if begun % _NOTED_EVERY == 0:
            ledger.store.put(object_keys.cursor(batch), str(begun).encode())
    ledger.store.put(object_keys.cursor(batch), str(begun).encode())


def cursor(ledger: Ledger, batch: str) -> int:
    """How many rows were submitted at least."""
    try:
        return int(ledger.store.get(object_keys.cursor(batch)))
    except NotFound:
        return 0


def is_paused(ledger: Ledger, batch: str) -> bool:
    return ledger.store.exists(object_keys.paused(batch))


def ended_items(ledger: Ledger, batch: str) -> dict[int, str]:
    """The state of each row that has ended."""
    return _states(ledger, object_keys.done_markers(batch))


def ended_items_of_page(ledger: Ledger, batch: str, page: int) -> dict[int, str]:
    """The same of the rows of one page of the manifest."""
    return _states(ledger, object_keys.done_markers_of_page(batch, page))


def _states(ledger: Ledger, prefix: str) -> dict[int, str]:
    return dict(object_keys.read_done_marker(entry.key) for entry in ledger.store.list(prefix))


def cancel_items(ledger: Ledger, request: Request) -> None:
    ended = ended_items(ledger, request.id)
    for row in begun(ledger, request):
        item = ledger.request(item_id(request.id, row)) if row not in ended else None
        if item and item.status == "committed":
            cancel(ledger, item.id)


def erase_items(ledger: Ledger, request: Request) -> bool:
    """Erase all jobs of a batch that has ended. False: somebody else is at it."""
    lease, token = f"erasing:{request.id}", uuid.uuid4().hex
    if not ledger.redis.leases.take(lease, token):
        return False
    now = ledger.store.now()
    for row in begun(ledger, request):
        item = item_id(request.id, row)
        outcome = ledger.outcome(item)
        if outcome is None or outcome.kind != "erased":
            announce_erasure(ledger, item_tombstone(request, row, now))
            end_erasure(ledger, item)
        ledger.redis.leases.extend(lease, token)
    ledger.redis.leases.release(lease, token)
    return True


def awaited_uploads(ledger: Ledger) -> Iterator[str]:
    """Keys of the uploads that jobs of batches will be made of."""
    for entry in list(ledger.store.list(object_keys.UNREAD)):
        batch = ledger.request(entry.key.rpartition("/")[2])
        if batch and batch.status == "committed" and ledger.outcome(batch.id) is None:
            for _, row in manifest(ledger, batch, cursor(ledger, batch.id)):
                if row.image.startswith("upload:"):
                    yield _image_key(ledger, batch, row)


def begun(ledger: Ledger, request: Request) -> range:
    """All rows that a job may have been made of, or is being made of."""
    return range(min(cursor(ledger, request.id) + _NOTED_EVERY, request.rows or 0))


def _submit_item(ledger: Ledger, request: Request, number: int, row: Row) -> None:
    item = item_id(request.id, number)
    known = ledger.request(item)
    if known:
        if known.refused:
            refuse(ledger, known)
        return
    if row == ERASED:
        return
    new = NewJob(
        data=b"",
        media_type="application/octet-stream",
        tenant=request.tenant,
        priority=request.priority,
        webhook_url=request.item_webhook_url,
        metadata=row.metadata,
        study=row.study,
        patient=row.patient,
        indication=row.indication,
        id=item,
        batch=request.id,
        row=number,
        name=row.name,
    )
    try:
        _commit_item(ledger, request, item, row, new)
    except (Abandoned, WasErased):  # the batch has ended, or the row was erased, meanwhile
        return


def _commit_item(ledger: Ledger, request: Request, item: str, row: Row, new: NewJob) -> None:
    """Raises Abandoned, WasErased, StoreError."""
    found = _image(ledger, request, row)
    if isinstance(found, Failure):
        refused = new.request(ledger, item).model_copy(
            update={"refused": found, "input_sha256": "", "media_type": ""}
        )
        refuse(ledger, commit(ledger, refused, None))
        return
    data, kind = found
    new = replace(new, data=data, media_type=kind)
    ledger.enqueue(commit(ledger, new.request(ledger, item), data))
    if row.image.startswith("upload:"):
        ledger.store.delete(_image_key(ledger, request, row))


def _image(ledger: Ledger, request: Request, row: Row) -> tuple[bytes, str] | Failure:
    """The image that a row names with its media type, or why it can't be read."""
    try:
        key = _image_key(ledger, request, row)
        if ledger.store.size(key) > ledger.settings.max_upload_bytes:
            return Failure(code="image-too-large", message="The image has more bytes than are accepted.")
        data = ledger.store.get(key)
        return data, media_type(data)
    except NotAnImage as error:
        return Failure(code="not-an-image", message=str(error))
    except (NotFound, ValueError):  # or what can't be a key
        return Failure(code="no-image", message="There is no image where the manifest says.")


def _image_key(ledger: Ledger, request: Request, row: Row) -> str:
    """Raises NotFound for a job whose image was erased, or that is another tenant's."""
    kind, _, where = row.image.partition(":")
    if kind == "file":
        return object_keys.batch_input(request.id, request.nonce, where)
    if kind == "upload":
        return object_keys.upload(request.tenant, where)
    if kind == "import":
        return object_keys.imported(request.tenant, where)
    found = ledger.request(where) if kind == "job" else None
    if found is None or found.status != "committed" or found.tenant != request.tenant:
        raise NotFound(where)
    return object_keys.job_input(where, found.input_sha256)
