"""Readers' feedback: no version is lost, whoever writes at the same time, and an erasure leaves nothing of it."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from emx_shared.contracts.report import Box
from emx_shared.contracts.states import JobState
from emx_shared.ledger import (
    MOST_VERSIONS,
    BeingErased,
    FeedbackConflict,
    Ledger,
    Reconciler,
    TooManyVersions,
    add_feedback,
    erase,
    erase_group,
    finish,
    object_keys,
    reviewed_jobs,
    submit,
)
from emx_shared.ledger.jobs.erasure import announce_erasure
from emx_shared.ledger.records import Feedback, FeedbackVersion, JobRecord, Outcome, ReviewedLocation, tombstone_of
from emx_shared.ledger.scrub import examine
from emx_shared.store import Store
from emx_shared.store.directory import DirectoryStore
from support.mortality import Killed, MortalStore, die_after_each_write, listed, new_job, reconcile

WORDS = "The words of a reader."
BOX = Box(xmin=0, ymin=0, xmax=10, ymax=10)
PLACE = ReviewedLocation(
    of=0, verdict="agreed", label="mass", code="mass", box=BOX, box_normalised=BOX, colour="#000000"
)


def read_job(ledger: Ledger, **fields: object) -> JobRecord:
    """Return a job that has ended. What a report says is nothing to the ledger's part of feedback."""
    job = submit(ledger, new_job(**fields))[0]
    finish(ledger, job.id, Outcome(state=JobState.SUCCEEDED, finished_at=ledger.now()))
    return job


def version(ledger: Ledger, number: int, reviewer: str = "AB") -> FeedbackVersion:
    return FeedbackVersion(
        version=number,
        reviewed_at=ledger.now(),
        reviewer=reviewer,
        verdict="agree",
        comment=WORDS,
        locations=(PLACE,),
    )


def versions(ledger: Ledger, job: str) -> list[FeedbackVersion]:
    found = ledger.feedback(job)
    return list(found.versions) if found else []


def traces(ledger: Ledger, job: str) -> list[str]:
    """Return every object that is about a job's feedback, or has a reader's words."""
    keys = (object_keys.feedback(job), object_keys.feedback_marker("default", job))
    return [key for key in keys if ledger.store.exists(key)] + words_left(ledger)


def words_left(ledger: Ledger) -> list[str]:
    return [key for key in listed(ledger, "") if WORDS.encode() in ledger.store.get(key)]


def mend(ledger: Ledger) -> None:
    for fault in examine(ledger, -5.0, lambda _: None):
        if fault.mend:
            fault.mend()


def test_versions_are_kept_in_their_order_and_the_report_stays(ledger: Ledger) -> None:
    job = read_job(ledger)
    before = ledger.store.get(object_keys.outcome(job.id)), ledger.store.get(object_keys.record(job.id))
    written = [version(ledger, number, reviewer=f"R{number}") for number in (1, 2, 3)]
    for each in written:
        add_feedback(ledger, job, each)
    assert versions(ledger, job.id) == written
    assert list(reviewed_jobs(ledger, "default")) == [job.id]
    assert (ledger.store.get(object_keys.outcome(job.id)), ledger.store.get(object_keys.record(job.id))) == before


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_version_that_does_not_follow_the_newest_changes_nothing(ledger: Ledger, number: int) -> None:
    job = read_job(ledger)
    first = version(ledger, 1)
    add_feedback(ledger, job, first)
    with pytest.raises(FeedbackConflict) as caught:
        add_feedback(ledger, job, version(ledger, number, reviewer="CD"))
    assert caught.value.newest == 1
    assert versions(ledger, job.id) == [first]


def test_a_first_version_must_be_the_first_and_leaves_no_marker_if_it_is_not(ledger: Ledger) -> None:
    job = read_job(ledger)
    with pytest.raises(FeedbackConflict) as caught:
        add_feedback(ledger, job, version(ledger, 2))
    assert caught.value.newest == 0
    assert traces(ledger, job.id) == []


def test_of_readers_at_once_one_is_first_and_the_others_are_told(ledger: Ledger) -> None:
    job, readers = read_job(ledger), 8
    for newest in range(3):
        start = threading.Barrier(readers)

        def write(reader: int, newest: int = newest, start: threading.Barrier = start) -> str:
            mine = version(ledger, newest + 1, reviewer=f"R{reader}")
            start.wait()
            try:
                add_feedback(ledger, job, mine)
            except FeedbackConflict as conflict:
                assert conflict.newest == newest + 1
                return ""
            return mine.reviewer

        with ThreadPoolExecutor(readers) as pool:
            won = [reviewer for reviewer in pool.map(write, range(readers)) if reviewer]
        assert [each.reviewer for each in versions(ledger, job.id)][newest:] == won
        assert len(won) == 1


def test_there_are_at_most_so_many_versions(ledger: Ledger) -> None:
    job = read_job(ledger)
    add_feedback(ledger, job, version(ledger, 1))
    full = tuple(version(ledger, number) for number in range(1, MOST_VERSIONS + 1))
    ledger.store.put(object_keys.feedback(job.id), Feedback(versions=full).dump())
    with pytest.raises(TooManyVersions):
        add_feedback(ledger, job, version(ledger, MOST_VERSIONS + 1))
    assert versions(ledger, job.id) == list(full)


def _write(ledger: Ledger, job: JobRecord, mine: FeedbackVersion) -> None:
    add_feedback(ledger, job, mine)


@pytest.mark.parametrize("newest", [0, 1])
def test_a_writer_may_die_anywhere_and_be_repeated(ledger: Ledger, newest: int) -> None:
    for writes in range(1, 6):
        job = read_job(ledger)
        if newest:
            add_feedback(ledger, job, version(ledger, 1))
        mine = version(ledger, newest + 1)
        died = die_after_each_write(
            ledger, lambda mortal, job=job, mine=mine: add_feedback(mortal, job, mine), writes
        )
        assert len(versions(ledger, job.id)) in (newest, newest + 1)
        assert not {fault.kind.code for fault in examine(ledger, -5.0, lambda _: None)}, "what it left is no fault"
        add_feedback(ledger, job, mine)
        assert versions(ledger, job.id)[newest:] == [mine]
        if not died:
            return
    raise AssertionError("it never got through")


def test_an_answer_that_was_lost_makes_no_second_version(ledger: Ledger) -> None:
    job = read_job(ledger)
    mine = version(ledger, 1)
    for _ in range(2):
        add_feedback(ledger, job, mine)
    assert versions(ledger, job.id) == [mine]


def test_a_newer_versions_fields_are_kept(ledger: Ledger) -> None:
    job = read_job(ledger)
    add_feedback(ledger, job, version(ledger, 1))
    key = object_keys.feedback(job.id)
    data = (
        ledger.store.get(key)
        .replace(b'"of":0', b'"of":0,"certainty":3')
        .replace(b'"nonce"', b'"seal":"x","nonce"')
    )
    ledger.store.put(key, data)
    add_feedback(ledger, job, version(ledger, 2))
    kept = ledger.store.get(key)
    assert b'"certainty":3' in kept and b'"seal":"x"' in kept
    assert len(versions(ledger, job.id)) == 2


# Erasure


Erase = Callable[[Ledger, JobRecord], object]
ERASURES: dict[str, Erase] = {
    "one": lambda ledger, job: erase(ledger, job.id),
    "patient": lambda ledger, job: erase_group(ledger, job.tenant, "patient", str(job.patient)),
}


@pytest.mark.parametrize("kind", ERASURES)
def test_an_erasure_leaves_nothing_wherever_it_stops(ledger: Ledger, kind: str) -> None:
    for writes in range(1, 30):
        job = read_job(ledger, patient=uuid.uuid4().hex)
        add_feedback(ledger, job, version(ledger, 1))
        died = die_after_each_write(ledger, lambda mortal, job=job: ERASURES[kind](mortal, job), writes)
        reconcile(ledger)
        assert traces(ledger, job.id) == [], writes
        if not died:
            return
    raise AssertionError("it never got through")


def test_feedback_goes_with_its_report_when_that_is_old(ledger: Ledger) -> None:
    job = read_job(ledger)
    add_feedback(ledger, job, version(ledger, 1))
    images = replace(ledger, settings=ledger.settings.model_copy(update={"retention_inputs": 0.0}))
    reports = replace(ledger, settings=ledger.settings.model_copy(update={"retention_reports": 0.0}))
    time.sleep(0.05)
    for strict, left in ((images, 1), (reports, 0)):
        ledger.redis.epoch.begin()
        Reconciler(strict).round()
        assert len(versions(ledger, job.id)) == left
    assert traces(ledger, job.id) == []


def test_nothing_is_taken_once_an_erasure_has_begun(ledger: Ledger) -> None:
    for number in (1, 2):
        job = read_job(ledger)
        for before in range(1, number):
            add_feedback(ledger, job, version(ledger, before))
        announce_erasure(ledger, tombstone_of(job))
        with pytest.raises(BeingErased):
            add_feedback(ledger, job, version(ledger, number))
        assert traces(ledger, job.id) == []


class OvertakenStore(MortalStore):
    """Passes everything on; right before its ``at``-th call something else happens, and later it may die."""

    def __init__(self, store: Store, at: int, happens: Callable[[], object], dies_after: int) -> None:
        super().__init__(store, dies_after)
        self.calls, self._at, self._happens = 0, at, happens

    def _next(self) -> None:
        self.calls += 1
        if self.calls == self._at:
            self._happens()

    def get(self, key: str) -> bytes:
        self._next()
        return super().get(key)

    def exists(self, key: str) -> bool:
        self._next()
        return self._store.exists(key)

    def put(self, key: str, data: bytes) -> None:
        self._next()
        super().put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._next()
        return super().put_if_absent(key, data)

    def replace(self, key: str, expected: bytes, data: bytes) -> bool:
        self._next()
        return super().replace(key, expected, data)


def overtaken(
    ledger: Ledger, newest: int, happens: Callable[[JobRecord], object], dies: int
) -> Iterator[JobRecord]:
    """Write feedback of a new job each time, overtaken right before each of its calls in turn."""
    for at in range(1, 30):
        job = read_job(ledger, patient=uuid.uuid4().hex)
        if newest:
            add_feedback(ledger, job, version(ledger, 1))
        store = OvertakenStore(ledger.store, at, lambda job=job: happens(job), dies)
        mine = version(ledger, newest + 1)
        with suppress(BeingErased, Killed, FeedbackConflict):
            add_feedback(replace(ledger, store=store), job, mine)
        yield job
        if store.calls < at:
            return
    raise AssertionError("it never got through")


NEVER = 1000


@pytest.mark.parametrize("newest", [0, 1])
def test_an_erasure_that_overtakes_a_writer_leaves_nothing(ledger: Ledger, newest: int) -> None:
    for job in overtaken(ledger, newest, lambda job: erase(ledger, job.id), NEVER):
        if ledger.job(job.id):  # the writer was quicker
            erase(ledger, job.id)
        assert traces(ledger, job.id) == []


@pytest.mark.parametrize("dies_after", [1, 2, 3, 4])
@pytest.mark.parametrize("newest", [0, 1])
def test_no_word_outlives_an_erasure_even_if_the_writer_dies(ledger: Ledger, newest: int, dies_after: int) -> None:
    """What may be left, a marker and an object without words, is found by a scrub."""
    for job in overtaken(ledger, newest, lambda job: erase(ledger, job.id), dies_after):
        if ledger.job(job.id):
            erase(ledger, job.id)
        assert words_left(ledger) == []
        mend(ledger)
        assert traces(ledger, job.id) == []


@pytest.mark.parametrize("newest", [0, 1])
def test_a_writer_that_comes_while_an_erasure_stands_still_leaves_nothing(ledger: Ledger, newest: int) -> None:
    for writes in range(1, 30):
        job = read_job(ledger)
        if newest:
            add_feedback(ledger, job, version(ledger, 1))
        died = die_after_each_write(ledger, lambda mortal, job=job: erase(mortal, job.id), writes)
        with pytest.raises((BeingErased, FeedbackConflict)):
            add_feedback(ledger, job, version(ledger, newest + 1))
        reconcile(ledger)
        assert traces(ledger, job.id) == []
        if not died:
            return
    raise AssertionError("it never got through")


def test_two_writers_and_an_erasure_leave_nothing(ledger: Ledger) -> None:
    """A second writer puts its empty object where the first one's was deleted: it isn't taken for the first's."""

    def happens(job: JobRecord) -> None:
        erase(ledger, job.id)
        ledger.store.put(object_keys.feedback(job.id), Feedback().dump())

    for job in overtaken(ledger, 0, happens, NEVER):
        assert words_left(ledger) == ([object_keys.feedback(job.id)] if ledger.job(job.id) else [])
        erase(ledger, job.id)


def test_what_is_deleted_while_it_is_replaced_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(tmp_path / "store")
    store.put("a/b", b"before")
    write, deleting = DirectoryStore._write, threading.Thread(target=store.delete, args=("a/b",))

    def slowly(self: DirectoryStore, key: str, data: bytes, *, replace: bool) -> bool:
        deleting.start()
        deleting.join(0.3)
        return write(self, key, data, replace=replace)

    monkeypatch.setattr(DirectoryStore, "_write", slowly)
    store.replace("a/b", b"before", b"after")
    deleting.join()
    assert not store.exists("a/b")
