"""Batch: the backlog of a study in one submission. A batch is a job with a manifest."""

import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

from shared.imaging import NotAnImage, media_type
from shared.ledger import keys
from shared.ledger.finish import cancel, finish
from shared.ledger.ledger import Ledger
from shared.ledger.manifest import PAGE, manifest
from shared.ledger.records import Failure, OpenMarker, Outcome, Page, Priority, Request, Row
from shared.ledger.submit import Conflict, NewJob, submit
from shared.store import NotFound

_ITEMS = uuid.UUID("8f1d2b9e-6b0c-5ad4-9d0a-7a9d6c1f4b52")
_KEYED = uuid.UUID("b6a1f5a4-4f0c-5c2b-8a64-0f6e8a1d9c37")
_FAILED = ("failed", "expired")


@dataclass(frozen=True)
class NewBatch:
    """A batch to submit.

    Attributes:
        fingerprint: digest of all that makes the submission, where there is an ``idempotency_key``.
        webhook_url: called once, when all has ended; ``item_webhook_url`` for each item.
        retry_of: the batch whose failed items these are.
    """

    tenant: str = "default"
    priority: Priority = "backlog"
    webhook_url: str | None = None
    item_webhook_url: str | None = None
    idempotency_key: str | None = None
    fingerprint: str = ""
    retry_of: str | None = None


@dataclass(frozen=True)
class Progress:
    """How many items have ended, by state."""

    rows: int
    ended: Counter[str]

    @property
    def counts(self) -> dict[str, int]:
        return {**{state: n for state, n in self.ended.items() if n}, "open": self.rows - self.ended.total()}


def item_id(batch: str, row: int) -> str:
    return str(uuid.uuid5(_ITEMS, f"{batch}\n{row}"))


def submit_batch(
    ledger: Ledger, new: NewBatch, rows: Iterable[Row], files: Iterable[tuple[str, bytes]] = ()
) -> Request:
    """Commit the batch; the courier submits its items.

    Rows are read one by one, so that there may be more than fit into memory; ``files`` are images that came along,
    by their SHA-256. A repeated key gets the first request back. Raises Conflict, StoreError.
    """
    batch, store = _id(new), ledger.store
    if known := ledger.request(batch):
        if known.fingerprint != new.fingerprint:
            raise Conflict
        return known
    store.put_if_absent(keys.open_marker(batch), OpenMarker().dump())
    for sha256, data in files:
        store.put(keys.batch_input(batch, sha256), data)
    count = 0
    unread = iter(rows)
    while page := tuple(islice(unread, PAGE)):
        store.put(keys.page(batch, count // PAGE), Page(rows=page).dump())
        count += len(page)
    request = Request(
        id=batch,
        kind="batch",
        fingerprint=new.fingerprint,
        tenant=new.tenant,
        submitted_at=store.now(),
        priority=new.priority,
        webhook_url=new.webhook_url,
        item_webhook_url=new.item_webhook_url,
        rows=count,
        retry_of=new.retry_of,
    )
    if not store.put_if_absent(keys.request(batch), request.dump()):
        request = ledger.request(batch) or request
    ledger.index.list_batch(new.tenant, batch, request.submitted_at)
    ledger.queue.expand(batch)
    return request


def _id(new: NewBatch) -> str:
    if new.idempotency_key is None:
        return str(uuid.uuid4())
    return str(uuid.uuid5(_KEYED, f"{new.tenant}\n{new.idempotency_key}"))


def expand(ledger: Ledger, batch: str) -> None:
    """Bring the batch forward: submit items up to the window, or end it. Safe to stop and repeat anywhere."""
    request = ledger.request(batch)
    if request is None or request.status != "committed":
        return
    outcome = ledger.outcome(batch)
    if outcome:
        _cancel_items(ledger, request)
        finish(ledger, batch, outcome)
        return
    so_far = progress(ledger, request)
    if so_far.ended.total() >= so_far.rows:
        exact = recount(ledger, request)
        if exact.ended.total() == exact.rows:
            counts = {state: n for state, n in exact.counts.items() if state != "open"}
            finish(ledger, batch, Outcome(kind="completed", finished_at=ledger.store.now(), counts=counts))
    elif not is_paused(ledger, batch):
        _submit_items(ledger, request, so_far)


def progress(ledger: Ledger, request: Request) -> Progress:
    """As Redis remembers it for a minute, else counted."""
    counted = ledger.index.batch_counts(request.id)
    return recount(ledger, request) if counted is None else Progress(request.rows or 0, Counter(counted))


def recount(ledger: Ledger, request: Request) -> Progress:
    """Counted from the done-markers in the store."""
    ended = Counter(ended_items(ledger, request.id).values())
    ledger.index.keep_batch_counts(request.id, ended)
    return Progress(request.rows or 0, ended)


def ended_items(ledger: Ledger, batch: str) -> dict[int, str]:
    """The state of each row that has ended."""
    return dict(keys.read_done_marker(entry.key) for entry in ledger.store.list(keys.done_markers(batch)))


def pause(ledger: Ledger, batch: str) -> None:
    """No more items are submitted; those that were go on."""
    ledger.store.put(keys.paused(batch), b"{}")


def resume(ledger: Ledger, batch: str) -> None:
    ledger.store.delete(keys.paused(batch))
    ledger.queue.expand(batch)


def is_paused(ledger: Ledger, batch: str) -> bool:
    return ledger.store.exists(keys.paused(batch))


def retry_failed(ledger: Ledger, request: Request, new: NewBatch) -> Request | None:
    """A new batch of the items that failed or expired so far; None if there are none."""
    failed = {row for row, state in ended_items(ledger, request.id).items() if state in _FAILED}
    if not failed:
        return None
    rows = (
        row.model_copy(update={"image": f"job:{item_id(request.id, number)}"})
        for number, row in manifest(ledger, request)
        if number in failed
    )
    return submit_batch(ledger, new, rows)


def _submit_items(ledger: Ledger, request: Request, so_far: Progress) -> None:
    """Submit rows until the window is full. The cursor is behind at worst: an item submitted twice is one item."""
    batch, begun = request.id, cursor(ledger, request.id)
    end = min(so_far.rows, so_far.ended.total() + ledger.settings.batch_window)
    for number, row in manifest(ledger, request, begun):
        if number >= end or ledger.outcome(batch) or is_paused(ledger, batch):
            break
        _submit_item(ledger, request, number, row)
        begun = number + 1
        if begun % _NOTED_EVERY == 0:
            ledger.store.put(keys.cursor(batch), str(begun).encode())
    ledger.store.put(keys.cursor(batch), str(begun).encode())


_NOTED_EVERY = 50


def cursor(ledger: Ledger, batch: str) -> int:
    """How many rows were submitted at least."""
    try:
        return int(ledger.store.get(keys.cursor(batch)))
    except NotFound:
        return 0


def _submit_item(ledger: Ledger, request: Request, number: int, row: Row) -> None:
    item = item_id(request.id, number)
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
        key = _image_key(ledger, request, row)
        if ledger.store.size(key) > ledger.settings.max_upload_bytes:
            _refuse(ledger, new, "image-too-large", "The image has more bytes than are accepted.")
            return
        data = ledger.store.get(key)
    except (NotFound, ValueError):  # or what can't be a key
        if not ledger.request(item):  # else it was submitted before, and the upload is gone since
            _refuse(ledger, new, "no-image", "There is no image where the manifest says.")
        return
    try:
        kind = media_type(data)
    except NotAnImage as error:
        _refuse(ledger, new, "not-an-image", str(error))
        return
    submit(ledger, replace(new, data=data, media_type=kind))
    if row.image.startswith("upload:"):
        ledger.store.delete(key)


def _image_key(ledger: Ledger, request: Request, row: Row) -> str:
    """Raises NotFound for a job whose image was erased, or that is another tenant's."""
    kind, _, where = row.image.partition(":")
    if kind == "file":
        return keys.batch_input(request.id, where)
    if kind == "upload":
        return keys.upload(request.tenant, where)
    if kind == "import":
        return keys.imported(request.tenant, where)
    found = ledger.request(where) if kind == "job" else None
    if found is None or found.status != "committed" or found.tenant != request.tenant:
        raise NotFound(where)
    return keys.job_input(where, found.input_sha256)


def _refuse(ledger: Ledger, new: NewJob, code: str, message: str) -> None:
    """An item that ends before it begins."""
    assert new.id is not None
    ledger.store.put_if_absent(keys.request(new.id), new.request(ledger, new.id).dump())
    failure = Failure(code=code, message=message)
    finish(ledger, new.id, Outcome(kind="failure", failure=failure, finished_at=ledger.store.now()))


def _cancel_items(ledger: Ledger, request: Request) -> None:
    ended = ended_items(ledger, request.id)
    for row in range(min(cursor(ledger, request.id) + _NOTED_EVERY, request.rows or 0)):
        item = item_id(request.id, row)
        if row not in ended and ledger.request(item):
            cancel(ledger, item)
