"""Many threads hand in a study each; one thread runs the engine."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from shared.report import Report
from worker.engine.batcher import Batcher, BatcherClosed
from worker.engine.engine import Engine
from worker.study import Study, StudyFault

Studies = Callable[[int], list[Study]]


class Scripted:
    """Stands where the engine does, to hold a batch up, and to see what batches come."""

    max_batch = 4

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go_on, self.begun = threading.Event(), threading.Event()
        self.go_on.set()
        self.poison: set[str] = set()
        self.busy = 0

    def read(self, studies: list[Study]) -> list[Any]:
        self.busy += 1
        assert self.busy == 1, "two threads in the engine"
        self.batches.append([study.id for study in studies])
        self.begun.set()
        self.go_on.wait(10)
        self.busy -= 1
        if self.poison & {study.id for study in studies}:
            raise RuntimeError("poisoned")
        return [f"report {study.id}" for study in studies]


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
def batcher(scripted: Scripted) -> Iterator[Batcher]:
    made = Batcher(scripted)  # type: ignore[arg-type]
    yield made
    scripted.go_on.set()
    made.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as made:
        yield made


def held_up(scripted: Scripted, batcher: Batcher, pool: ThreadPoolExecutor, study: Study) -> None:
    """Keep the engine busy, so that what follows has to wait."""
    scripted.go_on.clear()
    pool.submit(batcher.read, replace(study, id="first"))
    assert scripted.begun.wait(5)


def wait_until_handed_in(batcher: Batcher, count: int) -> None:
    give_up = threading.Event()
    for _ in range(500):
        if len(batcher._waiting) == count:
            return
        give_up.wait(0.01)
    raise AssertionError(f"{len(batcher._waiting)} studies wait, not {count}")


def test_studies_that_wait_are_read_together_in_batches_that_fit(
    scripted: Scripted, batcher: Batcher, pool: ThreadPoolExecutor, studies: Studies
) -> None:
    batch = studies(10)
    held_up(scripted, batcher, pool, batch[0])
    answers = [pool.submit(batcher.read, study) for study in batch]
    wait_until_handed_in(batcher, 10)
    scripted.go_on.set()
    assert [answer.result(5) for answer in answers] == [f"report {n}" for n in range(10)]
    assert [len(batch) for batch in scripted.batches] == [1, 4, 4, 2]


def test_a_suspect_is_read_alone(
    scripted: Scripted, batcher: Batcher, pool: ThreadPoolExecutor, studies: Studies
) -> None:
    batch = studies(5)
    held_up(scripted, batcher, pool, batch[0])
    answers = []
    for number, study in enumerate(batch):
        answers.append(pool.submit(batcher.read, study, alone=study.id == "2"))
        wait_until_handed_in(batcher, number + 1)
    scripted.go_on.set()
    for answer in answers:
        answer.result(5)
    assert scripted.batches[1:] == [["0", "1"], ["2"], ["3", "4"]]


def test_a_batch_that_fails_is_read_study_by_study(
    scripted: Scripted, batcher: Batcher, pool: ThreadPoolExecutor, studies: Studies
) -> None:
    batch = studies(4)
    held_up(scripted, batcher, pool, batch[0])
    scripted.poison = {"2"}
    answers = [pool.submit(batcher.read, study) for study in batch]
    wait_until_handed_in(batcher, 4)
    scripted.go_on.set()
    found = [answer.result(5) for answer in answers]
    assert [found[0], found[1], found[3]] == ["report 0", "report 1", "report 3"]
    assert isinstance(found[2], StudyFault)
    assert found[2].code == "engine"
    assert sorted(map(len, scripted.batches)) == [1, 1, 1, 1, 1, 4]


def test_what_fails_alone_is_not_tried_twice_and_the_next_is_read(
    scripted: Scripted, batcher: Batcher, studies: Studies
) -> None:
    scripted.poison = {"0"}
    first, second = studies(2)
    fault = batcher.read(first)
    assert isinstance(fault, StudyFault)
    assert fault.code == "engine"
    assert scripted.batches == [["0"]]
    assert batcher.read(second) == "report 1"


def test_a_broken_forward_gives_every_study_a_fault_and_the_engine_works_afterwards(
    engine: Engine, studies: Studies, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    made = Batcher(engine)
    with monkeypatch.context() as patch:
        patch.setattr(engine._loaded.model.model.language_model.layers[1].mlp, "forward", broken)
        faults = [answer.result(30) for answer in [pool.submit(made.read, study) for study in studies(3)]]
    assert [fault.code for fault in faults if isinstance(fault, StudyFault)] == ["engine"] * 3
    assert isinstance(made.read(studies(1)[0]), Report)
    made.close()


def test_closing_reads_what_was_handed_in_and_takes_no_more(
    scripted: Scripted, batcher: Batcher, pool: ThreadPoolExecutor, studies: Studies
) -> None:
    batch = studies(6)
    held_up(scripted, batcher, pool, batch[0])
    answers = [pool.submit(batcher.read, study) for study in batch]
    wait_until_handed_in(batcher, 6)
    closing = pool.submit(batcher.close)
    assert not closing.done()
    scripted.go_on.set()
    assert all(answer.result(5) for answer in answers)
    closing.result(5)
    with pytest.raises(BatcherClosed):
        batcher.read(batch[0])
