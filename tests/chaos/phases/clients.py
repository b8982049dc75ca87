"""Clients that race each other, and an image of which workers die."""

import hashlib
import json
import time
import uuid
from collections.abc import Callable

from emx_shared.ledger import object_keys
from tests.chaos.bench import Bench, Phase, Row
from tests.chaos.load import in_parallel
from tests.chaos.observer import read_whole

_RACERS = 4
_POISON_SECONDS = 60.0


def _duplicate(bench: Bench, row: Row) -> None:
    """Send one key several times at the same time: the requests go to both gateways in turn."""
    load = bench.load
    row.healed_at = time.monotonic()
    for _ in range(max(bench.jobs // 3, 2)):
        key, data = str(uuid.uuid4()), load.image()
        in_parallel(*([lambda key=key, data=data: load.submit(row.name, key, data)] * _RACERS))
    key, files = str(uuid.uuid4()), load.files()
    in_parallel(*([lambda: load.submit_batch(row.name, key, files)] * _RACERS))


def _race(bench: Bench, row: Row) -> None:
    """Cancel and erase jobs at the moment at which workers finish them."""
    load, models = bench.load, bench.system.models
    row.healed_at = time.monotonic()
    for _ in range(max(bench.jobs // 4, 1)):
        models.hold()
        jobs = [load.submit(row.name) for _ in range(3)]
        time.sleep(0.3)
        acts: list[Callable[[], object]] = [
            models.release,
            *(lambda job=job: load.cancel(row.name, job) for job in (jobs[0], jobs[2])),
            *(lambda job=job: load.erase_job(row.name, job) for job in (jobs[1], jobs[2])),
        ]
        bench.random.shuffle(acts)
        in_parallel(*acts)


def _poison(bench: Bench, row: Row) -> None:
    """Submit an image of which every worker dies that fetches it."""
    data = bench.load.image()
    bench.system.faults.poison(hashlib.sha256(data).hexdigest())
    with bench.under_load(row):
        job = bench.load.submit(row.name, data=data)
        bench.book.must_end(job, "failed")
        bench.wait_until_ended(_POISON_SECONDS, ids=[job])
    found = json.loads(read_whole(bench.ledger.store, object_keys.outcome(job)) or b"{}")
    code = (found.get("failure") or {}).get("code")
    row.notes.append(f"failed as {code} after {found.get('attempts')} attempts")


PHASES = [
    Phase("poison", _poison, "an image of which every worker dies"),
    Phase(
        "duplicates",
        _duplicate,
        "one Idempotency-Key sent to both gateways at the same time",
        loaded=False,
        beside=True,
    ),
    Phase("races", _race, "cancelling, erasing and finishing at the same time", loaded=False, beside=True),
]
