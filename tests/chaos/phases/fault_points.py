"""A process dies right before and right after every named write."""

import time
from collections.abc import Callable
from functools import partial

from tests.chaos.bench import Bench, Phase, Row
from tests.chaos.load import in_parallel
from tests.chaos.writes import FaultPoint, points

_SECONDS = 60.0
"""For so long operations are repeated until a process has died at every point."""

Tour = Callable[[Bench, str], None]


def _submit_and_end(bench: Bench, row: str) -> None:
    bench.load.submit(row)
    bench.load.submit_upload(row)


def _cancel(bench: Bench, row: str) -> None:
    bench.load.submit_and_cancel(row)


def _erase_patient(bench: Bench, row: str) -> None:
    bench.load.submit_and_erase(row)


def _batch(bench: Bench, row: str) -> None:
    batch = bench.load.submit_batch(row)
    bench.load.pause_and_resume(row, batch)


def _manifest(bench: Bench, row: str) -> None:
    bench.load.submit_manifest(row)


def _cancel_batch(bench: Bench, row: str) -> None:
    bench.load.cancel_batch(row, bench.load.submit_batch(row))


def _erase_batch(bench: Bench, row: str) -> None:
    files = bench.load.files()
    batch = bench.load.submit_batch(row, files=files)
    bench.load.pause_and_resume(row, batch)
    bench.load.erase_batch(row, batch, files)


def _die_at(armed: tuple[FaultPoint, ...], tours: tuple[Tour, ...], bench: Bench, row: Row) -> None:
    """Repeat some operations, each by a client of its own, until a process has died at every point."""
    faults, until = bench.system.faults, time.monotonic() + _SECONDS
    for point in armed:
        faults.arm(point)
    mine = {str(point) for point in armed}

    def repeat(tour: Tour) -> None:
        while faults.armed() & mine and time.monotonic() < until:
            tour(bench, row.name)

    in_parallel(*(partial(repeat, tour) for tour in tours))
    missed = sorted(faults.armed() & mine)
    for point in armed:
        faults.disarm(point)
    row.healed_at = time.monotonic()
    bench.load.submit(row.name)
    row.notes.append(f"a process died at {len(armed) - len(missed)} of {len(armed)} points")
    if missed:
        row.notes.append(f"nobody came to {', '.join(missed)}")


def _phase(name: str, heading: str, tours: tuple[Tour, ...], *armed: FaultPoint) -> Phase:
    return Phase(f"fault-points-{name}", partial(_die_at, armed, tours), heading)


PHASES = [
    _phase(
        "jobs",
        "a process dies before and after every write of submitting, finishing, cancelling and delivering",
        (_submit_and_end, _cancel, _erase_patient),
        *points(
            *(("write", name) for name in ("open", "group", "input", "record", "outcome", "outbox", "delivery")),
            *(("write", name) for name in ("upload", "used-upload")),
            *(("delete", name) for name in ("open", "outbox", "upload")),
        ),
    ),
    _phase(
        "batches",
        "the same for batches: submitting, advancing, pausing, resuming, ending",
        (_batch, _manifest, _cancel_batch),
        *points(
            *(("write", name) for name in ("open", "batch-input", "page", "unread", "record", "cursor", "done")),
            *(("write", name) for name in ("paused", "resumed", "outcome")),
            *(("delete", name) for name in ("paused", "batch-input", "unread", "open")),
        ),
    ),
    _phase(
        "erasure",
        "the same for erasing a patient and a batch",
        (_erase_patient, _erase_batch),
        *points(
            *(("write", name) for name in ("erasing", "record", "outcome")),
            *(("delete", name) for name in ("input", "group", "page", "cursor", "done", "unread", "erasing")),
        ),
    ),
]
