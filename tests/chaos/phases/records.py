"""Records that are cut, empty or garbage, of other jobs and of the job itself."""

import time
import uuid
from functools import partial
from typing import Literal

from emx_shared.ledger import NewJob, claim_job, object_keys
from emx_shared.ledger.records import (
    BatchRecord,
    Delivery,
    JobRecord,
    ManifestPage,
    OpenMarker,
)
from emx_shared.ledger.records import (
    Row as ManifestRow,
)
from tests.chaos.bench import Bench, Phase, Row

Damage = Literal["cut", "emptied", "garbage"]
_GARBAGE = b'{"format": "2.0", "kind": "chaos", "state": 7}'


def _damaged(whole: bytes, damage: Damage) -> bytes:
    return {"cut": whole[: len(whole) // 2], "emptied": b"", "garbage": _GARBAGE}[damage]


def _damage(damage: Damage, bench: Bench, row: Row) -> None:
    """Leave damaged objects of jobs that nobody submitted, and damage the objects of jobs that are under way."""
    strays = _strays(bench, damage)
    bench.strays += strays
    try:
        with bench.under_load(row):
            if damage != "garbage":  # which no writer leaves that died, and nobody replaces
                _damage_under_way(bench, row, damage)
            time.sleep(bench.system.pace.down)
    finally:
        bench.remove_strays(strays)


def _strays(bench: Bench, damage: Damage) -> list[str]:
    """Store damaged objects; return the ids of the jobs and batches that they are about."""
    store, now = bench.ledger.store, bench.ledger.now()
    marker, record, outcome, batch = (str(uuid.uuid4()) for _ in range(4))
    for id in (record, outcome, batch):
        store.put(object_keys.open_marker(id), OpenMarker().dump())
    store.put(object_keys.open_marker(marker), _damaged(OpenMarker(deaths=("x",)).dump(), damage))
    whole = JobRecord(id=record, submitted_at=now, input_sha256="0" * 64, media_type="image/png", patient="stray")
    store.put(object_keys.record(record), _damaged(whole.dump(), damage))
    store.put(object_keys.record(outcome), whole.model_copy(update={"id": outcome}).dump())
    store.put(object_keys.outcome(outcome), _damaged(b'{"format": "2.0", "state": "succeeded"}', damage))
    manifest = BatchRecord(id=batch, submitted_at=now, rows=1)
    page = ManifestPage(rows=(ManifestRow(image="import:stray.png", patient="stray"),)).dump()
    store.put(object_keys.unread_batch("default", batch), b"")
    store.put(object_keys.page(batch, manifest.nonce, 0), _damaged(page, damage))
    store.put(object_keys.record(batch), manifest.dump())
    return [marker, record, outcome, batch]


def _damage_under_way(bench: Bench, row: Row, damage: Damage) -> None:
    """Leave damaged objects where a job's own are about to be written: whoever writes them replaces those."""
    load, store, models = bench.load, bench.ledger.store, bench.system.models
    key, data = str(uuid.uuid4()), load.image()
    claimed = claim_job(bench.ledger, NewJob(data, "image/png", idempotency_key=key)).id
    store.put(object_keys.record(claimed), _damaged(b'{"kind": "job", "id": "stray"}', damage))
    models.hold()
    try:
        job = load.submit(row.name, key, data)
        event = Delivery.id_of(job, load.hook, "job.succeeded")
        for key_of_record in (object_keys.outcome(job), object_keys.outbox(event)):
            store.put_if_absent(key_of_record, _damaged(b'{"format": "2.0", "state": "succeeded"}', damage))
    finally:
        models.release()


PHASES = [
    Phase(f"records-{damage}", partial(_damage, damage), f"records of all kinds are {damage}", beside=True)
    for damage in ("cut", "emptied", "garbage")
]
