"""A process dies right before and right after every named write."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.chaos.bench import Bench, Phase, Row
from tests.chaos.load import Unanswered, in_parallel
from tests.chaos.writes import Act, points

_BETWEEN_SECONDS = 0.5
Tour = Callable[[Bench, str], object]


def _submit(bench: Bench, row: str) -> None:
    bench.load.submit_upload(row)


def _cancel(bench: Bench, row: str) -> None:
    bench.load.submit_and_cancel(row)


def _erase_patient(bench: Bench, row: str) -> None:
    bench.load.submit_and_erase(row)


def _review(bench: Bench, row: str) -> None:
    bench.load.submit_review_and_erase(row)


def _batch(bench: Bench, row: str) -> None:
    batch = bench.load.submit_batch(row, paused=True)
    bench.load.pause_and_resume(row, batch)


def _manifest(bench: Bench, row: str) -> None:
    bench.load.submit_manifest(row)


def _cancel_batch(bench: Bench, row: str) -> None:
    bench.load.cancel_batch(row, bench.load.submit_batch(row))


def _erase_batch(bench: Bench, row: str) -> None:
    files = bench.load.files()
    batch = bench.load.submit_batch(row, files=files, paused=True)
    bench.load.pause_and_resume(row, batch)
    bench.load.erase_batch(row, batch, files)


@dataclass(frozen=True)
class _Operation:
    """What a client does until a process has died at every point on its way.

    Attributes:
        writes: the points are before and after each of these.
    """

    tour: Tour
    writes: tuple[tuple[Act, str], ...] = ()


def _die_at(operations: tuple[_Operation, ...], bench: Bench, row: Row) -> None:
    """Have each operation done by a client of its own, at least once."""
    faults, until = bench.system.faults, time.monotonic() + bench.system.pace.fault_points
    armed = {point for operation in operations for point in points(*operation.writes)}
    for point in armed:
        faults.arm(point)

    def repeat(operation: _Operation) -> None:
        mine = {str(point) for point in points(*operation.writes)}
        while True:
            try:
                operation.tour(bench, row.name)
            except Unanswered as error:
                bench.book.give_up(row.name, str(error))
            if not faults.armed() & mine or time.monotonic() > until or bench.given_up:
                return
            time.sleep(_BETWEEN_SECONDS)

    in_parallel(*(partial(repeat, operation) for operation in operations))
    missed = sorted(str(point) for point in armed if str(point) in faults.armed())
    for point in armed:
        faults.disarm(point)
    row.healed_at = time.monotonic()
    bench.load.submit(row.name)
    row.notes.append(f"a process died at {len(armed) - len(missed)} of {len(armed)} points")
    if missed:
        row.notes.append(f"nobody came to {', '.join(missed)}")


def _phase(name: str, heading: str, *operations: _Operation) -> Phase:
    return Phase(f"fault-points-{name}", partial(_die_at, operations), heading, loaded=False)


def _writes(*names: str) -> tuple[tuple[Act, str], ...]:
    return tuple(("write", name) for name in names)


def _deletes(*names: str) -> tuple[tuple[Act, str], ...]:
    return tuple(("delete", name) for name in names)


PHASES = [
    _phase(
        "jobs",
        "a process dies before and after every write of submitting, finishing, cancelling and delivering",
        _Operation(
            _submit,
            _writes("upload", "open", "input", "record", "used-upload", "outcome", "outbox", "delivery")
            + _deletes("upload", "open", "outbox"),
        ),
        _Operation(_cancel),
    ),
    _phase(
        "batches",
        "the same for batches: submitting, pausing, resuming, advancing, ending",
        _Operation(
            _batch,
            _writes("batch-input", "page", "unread", "record", "paused", "resumed", "cursor", "done", "outcome")
            + _deletes("paused", "batch-input", "unread"),
        ),
        _Operation(_manifest),
        _Operation(_cancel_batch),
    ),
    _phase(
        "erasure",
        "the same for erasing a patient and a batch",
        _Operation(
            _erase_patient,
            _writes("group", "erasing", "record", "outcome") + _deletes("input", "group", "erasing"),
        ),
        _Operation(_review, _writes("feedback-marker", "feedback") + _deletes("feedback", "feedback-marker")),
        _Operation(_erase_batch, _deletes("page", "cursor", "done", "unread", "resumed")),
    ),
]
