"""From a message to an outcome, with a real ledger, a real Redis and a real engine."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from redis.exceptions import ConnectionError as RedisAway

from emx_shared.ledger import Ledger, NewJob, Reconciler, cancel, submit
from emx_shared.ledger.records import OpenMarker, Outcome
from emx_shared.store import StoreError
from emx_worker import job_runner
from emx_worker.backends.engine_thread import EngineThread
from emx_worker.engine.engine import Engine
from emx_worker.heartbeat import Heartbeat
from emx_worker.image_task import ImageFault, ImageTask
from emx_worker.job_runner import JobRunner
from emx_worker.model.loading import LoadedModel


@pytest.fixture
def runner(ledger: Ledger, engine: Engine) -> Iterator[JobRunner]:
    heartbeat = Heartbeat(ledger.redis, ledger.settings.lease, 60, lambda: engine.progress, "w1")
    made = JobRunner(ledger, EngineThread(lambda: engine), heartbeat)
    yield made
    made.close()


def png(width: int = 90, height: int = 60) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def submitted(ledger: Ledger, data: bytes | None = None) -> str:
    return submit(ledger, NewJob(png() if data is None else data, "image/png"))[0].id


def outcome(ledger: Ledger, job: str) -> Outcome:
    found = ledger.outcome(job)
    assert found is not None
    return found


def settled(ledger: Ledger, job: str) -> bool:
    """Tell whether nothing is left to do for a job, and nobody has its lease."""
    return not list(ledger.store.list(f"open/{job}")) and not ledger.redis.leases.is_held(job)


def test_a_job_ends_with_a_report(ledger: Ledger, runner: JobRunner) -> None:
    job = submitted(ledger)
    runner.read(job, "routine")
    found = outcome(ledger, job)
    assert found.report
    assert found.started_at and found.started_at <= found.finished_at
    assert (found.report.image.width, found.report.image.height) == (90, 60)
    assert found.report.timings.decode > 0
    assert settled(ledger, job)


def test_many_jobs_end_with_the_reports_that_they_would_have_alone(ledger: Ledger, runner: JobRunner) -> None:
    jobs = [submitted(ledger, png(90 + 10 * n, 60)) for n in range(6)]
    threads = [threading.Thread(target=runner.read, args=(job, "routine")) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, job in enumerate(jobs):
        again = submitted(ledger, png(90 + 10 * n, 60))
        runner.read(again, "routine")
        one, other = outcome(ledger, job).report, outcome(ledger, again).report
        assert one and other
        assert (one.findings, one.locations, one.image) == (other.findings, other.locations, other.image)


def test_a_broken_image_ends_in_a_failure_with_a_code(ledger: Ledger, runner: JobRunner) -> None:
    job = submitted(ledger, png()[:300])
    runner.read(job, "routine")
    failure = outcome(ledger, job).failure
    assert failure and failure.code == "bad-image"
    assert settled(ledger, job)


def test_a_vanished_image_ends_in_a_failure_with_a_code(ledger: Ledger, runner: JobRunner) -> None:
    job = submitted(ledger)
    for entry in list(ledger.store.list(f"jobs/{job}/input-")):
        ledger.store.delete(entry.key)
    runner.read(job, "routine")
    failure = outcome(ledger, job).failure
    assert failure and failure.code == "no-input"


def test_an_image_that_the_model_cannot_read_ends_in_a_failure(
    ledger: Ledger, runner: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineThread, "read", lambda *_, **__: ImageFault("not_finite", "Overflow."))
    job = submitted(ledger)
    runner.read(job, "routine")
    failure = outcome(ledger, job).failure
    assert failure and (failure.code, failure.message) == ("not_finite", "Overflow.")


def test_a_job_that_another_worker_leads_is_left_alone(ledger: Ledger, runner: JobRunner) -> None:
    job = submitted(ledger)
    ledger.redis.leases.take(job, "theirs")
    runner.read(job, "routine")
    assert ledger.outcome(job) is None
    assert ledger.redis.connection.client.get(f"lease:{job}") == "theirs"


def test_a_job_that_has_ended_is_not_read_again(
    ledger: Ledger, runner: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(ledger)
    runner.read(job, "routine")
    first = outcome(ledger, job)
    monkeypatch.setattr(EngineThread, "read", lambda *_, **__: pytest.fail("read again"))
    runner.read(job, "routine")
    assert outcome(ledger, job) == first


@pytest.mark.parametrize("draining", [False, True])
def test_a_stat_job_passes_those_that_wait_for_a_slot(
    ledger: Ledger, engine: Engine, monkeypatch: pytest.MonkeyPatch, draining: bool
) -> None:
    heartbeat = Heartbeat(ledger.redis, ledger.settings.lease, 60, lambda: engine.progress, "w1")
    runner = JobRunner(ledger, EngineThread(lambda: engine), heartbeat, slots=1)
    read, begun, go_on = EngineThread.read, threading.Event(), threading.Event()

    def held_up(backend: EngineThread, task: ImageTask) -> Any:
        if not task.urgent:
            begun.set()
            go_on.wait(20)
        return read(backend, task)

    monkeypatch.setattr(EngineThread, "read", held_up)
    others = [submitted(ledger), submitted(ledger)]
    threads = [threading.Thread(target=runner.read, args=(job, "routine")) for job in others]
    for thread in threads:
        thread.start()
    assert begun.wait(20)
    if draining:
        runner.drain()
        threads[1].join(5)
        assert sorted(thread.is_alive() for thread in threads) == [False, True]
    else:
        urgent = submit(ledger, NewJob(png(), "image/png", priority="stat"))[0].id
        give_up = time.monotonic() + 20
        while not ledger.outcome(urgent) and time.monotonic() < give_up:
            time.sleep(0.01)
        assert outcome(ledger, urgent).report
    assert [ledger.outcome(job) for job in others] == [None, None]
    go_on.set()
    for thread in threads:
        thread.join(20)
    runner.close()
    assert len([job for job in others if ledger.outcome(job)]) == (1 if draining else 2)


def test_a_draining_runner_hands_the_job_back_without_counting_a_death(ledger: Ledger, runner: JobRunner) -> None:
    job = submitted(ledger)
    runner.drain()
    runner.read(job, "routine")
    assert ledger.outcome(job) is None
    assert not ledger.redis.leases.is_held(job)
    assert ledger.queue.sent == [("read", job), ("read", job)]  # type: ignore[attr-defined]
    Reconciler(ledger).round()
    assert ledger.open_marker(job).deaths == ()


def test_a_cancelled_job_stops_and_stays_cancelled(
    ledger: Ledger, runner: JobRunner, loaded_slowly: threading.Event
) -> None:
    job = submitted(ledger)
    thread = threading.Thread(target=runner.read, args=(job, "routine"))
    thread.start()
    assert loaded_slowly.wait(10)
    cancel(ledger, job)
    thread.join(10)
    assert not thread.is_alive()
    assert outcome(ledger, job).state == "cancelled"
    assert settled(ledger, job)


@pytest.fixture
def loaded_slowly(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Make each step slow, and return an event that is set at the first."""
    begun, run = threading.Event(), engine._runner.decode_step

    def slow(batch: Any) -> Any:
        begun.set()
        time.sleep(0.1)
        return run(batch)

    monkeypatch.setattr(engine._runner, "decode_step", slow)
    return begun


def test_a_forward_that_hangs_loses_its_lease_and_another_worker_reads_the_job(
    ledger: Ledger, dense: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung, well = Engine(dense), Engine(dense)
    begun, proceed, forward = threading.Event(), threading.Event(), hung._runner.decode_step

    def hangs(batch: Any) -> Any:
        begun.set()
        assert proceed.wait(60)
        return forward(batch)

    monkeypatch.setattr(hung._runner, "decode_step", hangs)
    runners = [
        JobRunner(
            ledger,
            EngineThread(partial(lambda engine: engine, engine)),
            Heartbeat(ledger.redis, ledger.settings.lease, 0.5, partial(getattr, engine, "progress"), name),
        )
        for name, engine in (("hung", hung), ("well", well))
    ]
    job = submitted(ledger)
    thread = threading.Thread(target=runners[0].read, args=(job, "routine"))
    thread.start()
    assert begun.wait(10)
    sent = ledger.queue.sent  # type: ignore[attr-defined]
    sent.clear()
    ledger.redis.connection.client.delete("routine")  # the message was taken
    reconciler, give_up = Reconciler(ledger), time.monotonic() + 20
    while ("read", job) not in sent and time.monotonic() < give_up:
        reconciler.round()
        time.sleep(0.1)
    assert ("read", job) in sent
    assert len(ledger.open_marker(job).deaths) == 1
    runners[1].read(job, "routine")
    first = outcome(ledger, job)
    assert first.report
    proceed.set()
    thread.join(20)
    assert not thread.is_alive()
    assert outcome(ledger, job) == first
    assert settled(ledger, job)
    for runner in runners:
        runner.close()


def test_who_is_in_hand_with_a_suspect_is_not_blamed_for_what_it_does(
    ledger: Ledger, runner: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's death counts against each job that is marked as started then."""
    suspects = [submitted(ledger) for _ in range(3)]
    jobs = [*suspects, *(submitted(ledger) for _ in range(5))]
    for job in suspects:
        ledger.store.put(f"open/{job}", OpenMarker(deaths=("somebody",)).dump())
    read, begun = runner.backend.read, list[tuple[str, list[str]]]()

    def noted(task: ImageTask) -> Any:
        answer = read(task)
        begun.append((task.id, [job for job in jobs if ledger.redis.marks.started_at(job)]))
        return answer

    monkeypatch.setattr(runner.backend, "read", noted)
    with ThreadPoolExecutor(len(jobs)) as threads:
        for job in jobs:
            threads.submit(runner.read, job, "routine")
    assert all(outcome(ledger, job).report for job in jobs)
    for job, marked in begun:
        if job in suspects:
            assert marked == [job]
        else:
            assert not set(marked) & set(suspects)


@pytest.mark.parametrize("how", ["drain", "cancel"])
def test_a_suspect_that_waits_for_others_to_end_can_be_handed_back_or_cancelled(
    ledger: Ledger, runner: JobRunner, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    other, suspect = submitted(ledger), submitted(ledger)
    ledger.store.put(f"open/{suspect}", OpenMarker(deaths=("somebody",)).dump())
    read, begun, go_on = runner.backend.read, threading.Event(), threading.Event()

    def held_up(task: ImageTask) -> Any:
        begun.set()
        assert go_on.wait(60)
        return read(task)

    monkeypatch.setattr(runner.backend, "read", held_up)
    with ThreadPoolExecutor(2) as threads:
        try:
            reading = threads.submit(runner.read, other, "routine")
            assert begun.wait(20)
            waiting = threads.submit(runner.read, suspect, "routine")
            time.sleep(2.5 * ledger.settings.lease)
            assert ledger.redis.leases.is_held(suspect) and not ledger.redis.marks.started_at(suspect)
            if how == "drain":
                runner.drain()
            else:
                cancel(ledger, suspect)
            waiting.result(20)
        finally:
            go_on.set()
        reading.result(20)
    assert outcome(ledger, other).report
    assert not ledger.redis.leases.is_held(suspect)
    assert (ledger.outcome(suspect) is None) == (how == "drain")
    if how == "drain":
        assert ledger.open_marker(suspect).deaths == ("somebody",)


@pytest.fixture
def away(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that makes the next reads and conditional writes of the store fail."""
    left = [0]

    def failing(operation: Callable[..., Any], *arguments: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise StoreError("away")
        return operation(*arguments)

    for name in ("get", "put_if_absent"):
        monkeypatch.setattr(ledger.store, name, partial(failing, getattr(ledger.store, name)))
    return lambda failures: left.__setitem__(0, failures)


@pytest.mark.parametrize(
    ("place", "name"),
    [(job_runner, "take"), (Ledger, "input"), (job_runner, "finish")],
    ids=["take", "input", "finish"],
)
def test_a_store_that_is_unavailable_for_a_moment_costs_nothing_but_time(
    ledger: Ledger,
    runner: JobRunner,
    away: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    place: Any,
    name: str,
) -> None:
    job, operation, failures = submitted(ledger), getattr(place, name), iter([1])

    def interrupted(*arguments: Any) -> Any:
        away(next(failures, 0))
        return operation(*arguments)

    monkeypatch.setattr(place, name, interrupted)
    runner.read(job, "routine")
    assert outcome(ledger, job).report
    assert ledger.open_marker(job).deaths == ()
    assert settled(ledger, job)


def test_a_redis_that_is_unavailable_for_a_moment_loses_no_message(
    ledger: Ledger, runner: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, take, failing = submitted(ledger), ledger.redis.leases.take, [2]

    def interrupted(job: str, token: str) -> bool:
        failing[0] -= 1
        if failing[0] >= 0:
            raise RedisAway
        return take(job, token)

    monkeypatch.setattr(ledger.redis.leases, "take", interrupted)
    runner.read(job, "routine")
    assert outcome(ledger, job).report


def test_a_store_that_stays_unavailable_is_given_up_in_the_end(
    ledger: Ledger, runner: JobRunner, away: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(ledger)
    away(10**6)
    monkeypatch.setattr(job_runner, "_RETRY_SECONDS", 0.3)
    with pytest.raises(StoreError):
        runner.read(job, "routine")
    assert not ledger.redis.leases.is_held(job)


def test_opening_loads_the_model_that_the_settings_name(
    ledger: Ledger, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner, "open_ledger", lambda *_: ledger)
    changes = {"model": str(checkpoint), "quantisation": "none"}
    runner = JobRunner.open(ledger.settings.model_copy(update=changes))
    job = submitted(ledger)
    runner.read(job, "routine")
    runner.close()
    report = outcome(ledger, job).report
    assert report and (report.model.name, report.model.quantisation) == ("tiny", "none")
    assert ledger.redis.workers.count() == 1


def test_an_image_that_never_ends_is_a_failed_job_that_says_so(ledger: Ledger, runner: JobRunner) -> None:
    ledger.settings.decode_timeout = 0.05
    endless, other = submitted(ledger, png(6000, 6000)), submitted(ledger)
    runner.read(endless, "routine")
    ledger.settings.decode_timeout = 30
    runner.read(other, "routine")
    failure = outcome(ledger, endless).failure
    assert failure and (failure.code, failure.message) == (
        "bad-image",
        "Decoding the image took longer than 0.05 s.",
    )
    assert outcome(ledger, other).report
    assert settled(ledger, endless)


def test_a_report_is_kept_until_it_can_be_stored(
    ledger: Ledger, runner: JobRunner, away: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(ledger)
    monkeypatch.setattr(job_runner, "_RETRY_SECONDS", 0.1)
    finish = job_runner.finish

    def unavailable_at_first(*arguments: Any) -> Outcome:
        away(4)  # of each try's writes the first fails, for longer than other operations are tried
        monkeypatch.setattr(job_runner, "finish", finish)
        return finish(*arguments)

    monkeypatch.setattr(job_runner, "finish", unavailable_at_first)
    runner.read(job, "routine")
    assert outcome(ledger, job).report and settled(ledger, job)


def test_a_job_whose_image_cant_be_fetched_is_handed_back_and_no_death_is_counted(
    ledger: Ledger, runner: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(ledger)

    def unavailable(*_: Any) -> bytes:
        raise StoreError("away")

    monkeypatch.setattr(job_runner, "_RETRY_SECONDS", 0.3)
    monkeypatch.setattr(Ledger, "input", unavailable)
    with pytest.raises(StoreError):
        runner.read(job, "routine")
    assert not ledger.redis.leases.is_held(job)
    monkeypatch.undo()
    ledger.redis.epoch.begin()
    Reconciler(ledger).round()
    assert not ledger.open_marker(job).deaths
    runner.read(job, "routine")
    assert outcome(ledger, job).attempts == 1
