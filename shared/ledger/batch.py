"""Batch: the backlog of a study in one submission. A batch is a job with a manifest."""

import hashlib
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from shared.ledger import keys
from shared.ledger.finish import cancel, finish
from shared.ledger.ledger import Ledger
from shared.ledger.records import DoneMarker, JobState, Manifest, OpenMarker, Outcome, Priority, Request
from shared.ledger.submit import NewJob, submit

_ITEMS = uuid.UUID("8f1d2b9e-6b0c-5ad4-9d0a-7a9d6c1f4b52")


@dataclass(frozen=True)
class NewBatch:
    """Whole, validated image files with their media types."""

    files: Sequence[tuple[bytes, str]]
    tenant: str = "default"
    priority: Priority = "backlog"
    webhook_url: str | None = None


@dataclass(frozen=True)
class Progress:
    """Items of a batch by state, and what is known of each row that has ended."""

    rows: int
    done: dict[int, DoneMarker]

    @property
    def counts(self) -> dict[str, int]:
        counted = Counter(str(marker.state) for marker in self.done.values())
        return {**counted, "open": self.rows - len(self.done)}


def item_id(batch: str, row: int) -> str:
    return str(uuid.uuid5(_ITEMS, f"{batch}\n{row}"))


def submit_batch(ledger: Ledger, new: NewBatch) -> Request:
    """Commit the batch; the courier submits its items. Raises StoreError."""
    batch, store = str(uuid.uuid4()), ledger.store
    digests = [(hashlib.sha256(data).hexdigest(), media_type) for data, media_type in new.files]
    for (sha256, _), (data, _) in zip(digests, new.files, strict=True):
        store.put(keys.batch_input(batch, sha256), data)
    store.put(keys.manifest(batch), Manifest(rows=tuple(digests)).dump())
    store.put_if_absent(keys.open_marker(batch), OpenMarker().dump())
    request = Request(
        id=batch,
        kind="batch",
        tenant=new.tenant,
        submitted_at=store.now(),
        priority=new.priority,
        webhook_url=new.webhook_url,
        rows=len(digests),
    )
    store.put_if_absent(keys.request(batch), request.dump())
    ledger.queue.expand(batch)
    return request


def expand(ledger: Ledger, batch: str) -> None:
    """Bring the batch forward: submit items up to the window, or end it. Safe to stop and repeat anywhere."""
    request = ledger.request(batch)
    if request is None or request.status != "committed":
        return
    outcome = ledger.outcome(batch)
    now_done = progress(ledger, request)
    if outcome:
        _cancel_items(ledger, request, now_done)
        finish(ledger, batch, outcome)
    elif len(now_done.done) == now_done.rows:
        counts = {state: n for state, n in now_done.counts.items() if state != "open"}
        finish(ledger, batch, Outcome(kind="completed", finished_at=ledger.store.now(), counts=counts))
    else:
        _submit_items(ledger, request, now_done)


def progress(ledger: Ledger, request: Request) -> Progress:
    """Counted from the done-markers in the store."""
    done = {}
    for entry in ledger.store.list(keys.done_markers(request.id)):
        row = int(entry.key.rpartition("/")[2])
        done[row] = DoneMarker.model_validate_json(ledger.store.get(entry.key))
    return Progress(request.rows or 0, done)


def _submit_items(ledger: Ledger, request: Request, now_done: Progress) -> None:
    manifest = Manifest.model_validate_json(ledger.store.get(keys.manifest(request.id)))
    waiting = [row for row in range(now_done.rows) if row not in now_done.done]
    for row in waiting[: ledger.settings.batch_window]:
        item = item_id(request.id, row)
        if ledger.index.enqueued(item):
            continue
        if ledger.outcome(request.id):
            return
        sha256, media_type = manifest.rows[row]
        submit(
            ledger,
            NewJob(
                data=ledger.store.get(keys.batch_input(request.id, sha256)),
                media_type=media_type,
                tenant=request.tenant,
                priority=request.priority,
                id=item,
                batch=request.id,
                row=row,
            ),
        )


def _cancel_items(ledger: Ledger, request: Request, now_done: Progress) -> None:
    for row in range(now_done.rows):
        item = item_id(request.id, row)
        if row not in now_done.done and ledger.request(item):
            cancel(ledger, item)


def item_states(ledger: Ledger, request: Request) -> list[tuple[str, JobState]]:
    """Id and state of every row, in order."""
    now_done = progress(ledger, request)
    return [
        (item, now_done.done[row].state if row in now_done.done else ledger.state(item, None))
        for row in range(now_done.rows)
        for item in [item_id(request.id, row)]
    ]
