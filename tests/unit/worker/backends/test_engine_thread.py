"""Many threads submit an image each; one thread runs the engine."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from emx_shared.contracts.report import Report
from emx_worker.backends.engine_thread import EngineClosed, EngineThread
from emx_worker.engine.decoder_runner import DecoderRunner
from emx_worker.engine.engine import Engine
from emx_worker.engine.sequence import ReportSequence
from emx_worker.image_task import ImageFault, ImageTask

Tasks = Callable[[int], list[ImageTask]]


@pytest.fixture
def thread(engine: Engine) -> Iterator[EngineThread]:
    made = EngineThread(lambda: engine)
    yield made
    made.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as made:
        yield made


class Gate:
    """Stops the engine before its next prefill until ``proceed`` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.proceed, self.reached, self.sizes = threading.Event(), threading.Event(), list[int]()
        prefill = DecoderRunner.prefill

        def held_up(runner: DecoderRunner, batch: list[ReportSequence], slots: list[int]) -> torch.Tensor:
            self.sizes.append(len(batch))
            self.reached.set()
            assert self.proceed.wait(10)
            return prefill(runner, batch, slots)

        monkeypatch.setattr(DecoderRunner, "prefill", held_up)


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to be")


def test_images_submitted_by_many_threads_are_read_together_and_each_gets_its_own(
    engine: Engine,
    thread: EngineThread,
    pool: ThreadPoolExecutor,
    tasks: Tasks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = [answer.findings for answer in engine.read(tasks(10)) if isinstance(answer, Report)]
    gate = Gate(monkeypatch)
    first = pool.submit(thread.read, tasks(1)[0])
    assert gate.reached.wait(10)
    answers = [pool.submit(thread.read, task) for task in tasks(10)]
    wait_until(lambda: len(thread._submitted) == 10)
    gate.proceed.set()
    assert isinstance(first.result(60), Report)
    read = [answer.result(60) for answer in answers]
    assert [answer.findings for answer in read if isinstance(answer, Report)] == expected
    assert gate.sizes == [1, 10]


def test_an_image_submitted_later_joins_those_under_way(
    thread: EngineThread, pool: ThreadPoolExecutor, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, decode_step = [], DecoderRunner.decode_step
    under_way, joined = threading.Event(), threading.Event()

    def watched(runner: DecoderRunner, batch: list[ReportSequence]) -> torch.Tensor:
        together.append(len(batch))
        under_way.set()
        assert joined.wait(10)
        return decode_step(runner, batch)

    monkeypatch.setattr(DecoderRunner, "decode_step", watched)
    first = pool.submit(thread.read, tasks(2)[0])
    assert under_way.wait(10)
    second = pool.submit(thread.read, tasks(2)[1])
    wait_until(lambda: len(thread._submitted) == 1)
    joined.set()
    assert isinstance(first.result(60), Report) and isinstance(second.result(60), Report)
    assert together[0] == 1
    assert 2 in together


def all_fail(thread: EngineThread, pool: ThreadPoolExecutor, tasks: list[ImageTask]) -> None:
    faults = [answer.result(30) for answer in [pool.submit(thread.read, task) for task in tasks]]
    assert [fault.code for fault in faults if isinstance(fault, ImageFault)] == ["engine"] * len(tasks)


def test_a_broken_forward_gives_every_image_a_fault_and_the_engine_works_afterwards(
    engine: Engine,
    thread: EngineThread,
    tasks: Tasks,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a kernel gave up")

    with monkeypatch.context() as patch:
        patch.setattr(engine._loaded.model.model.language_model.layers[1].mlp, "forward", broken)
        all_fail(thread, pool, tasks(3))
    assert isinstance(thread.read(tasks(1)[0]), Report)


def test_an_engine_that_fails_between_forwards_leaves_nobody_waiting(
    engine: Engine,
    thread: EngineThread,
    tasks: Tasks,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(engine._scheduler, "schedule", broken)
        all_fail(thread, pool, tasks(3))
    assert isinstance(thread.read(tasks(1)[0]), Report)


def test_closing_reads_what_was_submitted_and_takes_no_more(
    engine: Engine, pool: ThreadPoolExecutor, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, thread = Gate(monkeypatch), EngineThread(lambda: engine)
    answers = [pool.submit(thread.read, task) for task in tasks(6)]
    assert gate.reached.wait(10)
    wait_until(lambda: len(thread._submitted) + sum(gate.sizes) == 6)
    closing = pool.submit(thread.close)
    assert not closing.done()
    gate.proceed.set()
    assert all(isinstance(answer.result(60), Report) for answer in answers)
    closing.result(10)
    with pytest.raises(EngineClosed):
        thread.read(tasks(1)[0])
