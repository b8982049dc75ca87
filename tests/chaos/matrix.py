"""Runs the phases one after the other on one system, then checks what must hold."""

import math
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx

from emx_shared.ledger.opening import open_ledger
from emx_shared.settings import Settings
from tests.chaos import invariants
from tests.chaos.bench import Bench, NotHere, Phase, Row
from tests.chaos.book import Book, Promise
from tests.chaos.invariants import Violation
from tests.chaos.load import FEWEST, Load, Unanswered
from tests.chaos.observer import Observer
from tests.chaos.report import Result
from tests.chaos.system import LONG, SHORT, Pace, System

LONG_FROM = 500
"""Jobs from which on a run is a long one: see ``system.Pace``."""

_LOOK_SECONDS = 1.0
_MOST_NOTES = 5
"""Violations that a row spells out."""

_MORE = 1.1
"""How many jobs are submitted for each that is wanted: while something is broken, some are refused."""

END = "end"
"""The row of what can't be told to belong to any other."""

Progress = Callable[[str], None]


def run_matrix(store: str, jobs: int, phases: Sequence[Phase], seed: int, progress: Progress) -> Result:
    """Run some phases on a fresh system.

    Args:
        store: ``directory`` or ``s3``.
        jobs: how many are submitted at least; each row submits its share, and never fewer than six.
        phases: in their order.
        seed: of images, pauses, victims and the receiver's faults.
        progress: is told what happens, line by line.

    Raises:
        NotReady: the system didn't start.
    """
    began, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="chaos-"))
    progress(f"starting; the logs are in {folder / 'logs'}")
    kept = True
    try:
        rows = _run_in(folder, store, jobs, phases, seed, progress)
        kept = not all(row.holds for row in rows)
    except KeyboardInterrupt:
        kept = False
        raise
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    if kept:
        progress(f"not everything held; the logs are kept in {folder / 'logs'}")
    workers = "the demo model" if _pace(jobs).cold else "a small server of the harness (EMX_SERVER)"
    return Result(store, workers, time.monotonic() - began, tuple(rows))


def _pace(jobs: int) -> Pace:
    return LONG if jobs >= LONG_FROM else SHORT


def _run_in(
    folder: Path, store: str, jobs: int, phases: Sequence[Phase], seed: int, progress: Progress
) -> list[Row]:
    pace, book = _pace(jobs), Book()
    with ExitStack() as stack:
        system = stack.enter_context(System(folder, store, pace, seed))
        load = Load(system.gateways, system.receiver.url, book, seed, pace.patience)
        stack.callback(load.close)
        settings = Settings(
            store=system.store.address, redis=system.redis_url, s3_access_key="any", s3_secret_key="any"
        )
        ledger = open_ledger(settings, "chaos")
        observer = stack.enter_context(Observer(ledger.store, book))
        share = max(math.ceil(_MORE * jobs / max(sum(phase.loaded for phase in phases), 1)), FEWEST)
        bench = Bench(system, load, book, observer, ledger, share, random.Random(seed))
        rows = _run_phases(bench, phases, progress)
        progress("waiting until everything has ended")
        bench.wait_until_ended(pace.settle)
        bench.remove_strays(bench.strays)  # once more: somebody may have been at work on one of them
        found = [*_settle(bench), *_final_violations(bench)]
        for row in rows:
            _fill(bench, row, [each for each in found if each.row == row.name])
        if others := [each for each in found if each.row is None]:
            rows.append(Row(END, recovery_seconds=0.0))
            _fill(bench, rows[-1], others)
    return rows


def _run_phases(bench: Bench, phases: Sequence[Phase], progress: Progress) -> list[Row]:
    """Run the phases, in a short run those together that may be."""
    steps: list[list[Phase]] = []
    for phase in phases:
        if steps and phase.beside and not bench.system.pace.cold:
            steps[-1].append(phase)
        else:
            steps.append([phase])
    rows: list[Row] = []
    for step in steps:
        with ThreadPoolExecutor(len(step)) as threads:
            try:
                rows += threads.map(lambda phase: _run_phase(bench, phase, progress), step)
            except BaseException:
                bench.give_up()
                raise
    return rows


def _run_phase(bench: Bench, phase: Phase, progress: Progress) -> Row:
    row, began = Row(phase.name), time.monotonic()
    progress(f"{phase.name} …")
    try:
        phase.run(bench, row)
    except Unanswered as error:
        bench.book.give_up(row.name, str(error))
        row.healed_at = time.monotonic()
    except NotHere as error:
        row.skipped = True
        row.notes.append(f"skipped: {error}")
    else:
        bench.recover(row)
    pace = bench.system.pace
    if pace.cold and not bench.wait_until_ended(pace.settle, row.name):
        row.notes.append(f"not all had ended after {pace.settle:.0f} s")
    took = time.monotonic() - began
    progress(f"{phase.name}: recovered in {row.recovery_seconds} s, took {took:.1f} s {'; '.join(row.notes)}")
    return row


def _settle(bench: Bench) -> list[Violation]:
    """Wait until nothing is owed and nothing left. Return what is wrong with that after a long wait."""
    until = time.monotonic() + bench.system.pace.settle
    while True:
        bench.wait_until_ended(max(until - time.monotonic(), 0))
        found = _passing_violations(bench)
        if not found or time.monotonic() > until or bench.given_up:
            return found
        time.sleep(_LOOK_SECONDS)


def _passing_violations(bench: Bench) -> list[Violation]:
    """Return what couriers and reconcilers may still mend."""
    store, promises = bench.ledger.store, bench.book.promises
    return [
        *invariants.check_rest(store, promises, bench.system.store.unfinished_writes()),
        *invariants.check_webhooks(bench.observer.first, promises, bench.system.receiver.taken),
        *_check_lists(bench, promises),
    ]


def _final_violations(bench: Bench) -> list[Violation]:
    """Return what nothing will mend."""
    store, promises, system = bench.ledger.store, bench.book.promises, bench.system
    disk = system.store.disk
    everything = _files(disk) if disk else invariants.contents(store)
    return [
        *invariants.check_outcomes(store, promises, bench.observer.first),
        *invariants.check_unpromised(store, promises),
        *invariants.check_batches(store, promises),
        *invariants.check_erased(store, bench.book.secrets, everything),
        *(Violation(row, "double_outcomes", text) for row, text in bench.book.doubled),
        *(Violation(row, "lost", text) for row, text in bench.book.given_up),
    ]


def _check_lists(bench: Bench, promises: Sequence[Promise]) -> list[Violation]:
    for gateway in bench.load.gateways:
        listed, cursor, complete = set[str](), None, True
        while True:
            try:
                answer = httpx.get(
                    f"{gateway}/v1/jobs", params={"limit": 100, **({"cursor": cursor} if cursor else {})}
                )
                page = answer.raise_for_status().json()
            except httpx.HTTPError:
                return [Violation(None, "lost", f"{gateway} doesn't list its jobs")]
            listed |= {job["id"] for job in page["items"]}
            complete, cursor = complete and page["complete"], page["next_cursor"]
            if cursor is None:
                break
        if not complete:
            return [Violation(None, "lost", "the list of jobs isn't complete")]
        if found := list(invariants.check_list(listed, complete, promises)):
            return found
    return []


def _files(folder: Path) -> Sequence[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def _fill(bench: Bench, row: Row, found: Sequence[Violation]) -> None:
    """Count into a row what was found of it."""
    row.jobs = sum(promise.kind != "batch" for promise in bench.book.of(row.name))
    last = bench.observer.last_of(row.name)
    row.ended_seconds = None if last is None else round(max(last - row.healed_at, 0.0), 2)
    for kind in ("lost", "double_outcomes", "owed_webhooks", "orphans"):
        setattr(row, kind, sum(each.kind == kind for each in found))
    row.notes += [f"{count} {what}" for what, count in bench.book.remarks(row.name).items()]
    row.notes += [each.text for each in found[:_MOST_NOTES]]
    if len(found) > _MOST_NOTES:
        row.notes.append(f"and {len(found) - _MOST_NOTES} more")
