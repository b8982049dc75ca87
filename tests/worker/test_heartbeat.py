"""The heartbeat with a real Redis: leases are kept, lost and renewed."""

import time
from collections.abc import Callable, Iterator

import pytest

from emx_shared.redis_state.index import Index
from emx_worker.heartbeat import Heartbeat

LEASE, HANG = 1.0, 0.8


class Steps:
    """An engine's progress, which increases until ``hanging`` is set."""

    hanging = False

    def __init__(self) -> None:
        self._at_hang = 0

    def __call__(self) -> int:
        if not self.hanging:
            self._at_hang = time.monotonic_ns()
        return self._at_hang


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
def heartbeat(index: Index, steps: Steps) -> Iterator[Heartbeat]:
    made = Heartbeat(index, LEASE, HANG, steps, "w1")
    yield made
    made.close()


def soon(true: Callable[[], object], seconds: float = 4) -> bool:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if true():
            return True
        time.sleep(0.02)
    return False


def taken(index: Index, heartbeat: Heartbeat, job: str = "job", token: str = "mine"):  # type: ignore[no-untyped-def]
    assert index.take_lease(job, token)
    return heartbeat.hold(job, token)


def test_a_lease_is_kept_as_long_as_it_is_held(index: Index, heartbeat: Heartbeat) -> None:
    cancelled = taken(index, heartbeat)
    for _ in range(25):
        time.sleep(0.1)
        assert index.redis.get("lease:job") == "mine"
    assert not cancelled.is_set()
    heartbeat.release("mine")
    assert soon(lambda: not index.leased("job"))


def test_a_cancellation_is_noticed_by_the_job_alone(index: Index, heartbeat: Heartbeat) -> None:
    cancelled, other = taken(index, heartbeat), taken(index, heartbeat, "other", "too")
    index.ask_to_cancel("job")
    assert soon(cancelled.is_set)
    assert not other.is_set()


def test_a_lease_that_another_worker_took_is_given_up(index: Index, heartbeat: Heartbeat) -> None:
    lost = taken(index, heartbeat)
    index.redis.set("lease:job", "theirs")
    assert soon(lost.is_set)
    assert index.redis.get("lease:job") == "theirs"


def test_leases_are_made_anew_after_redis_lost_its_memory(index: Index, heartbeat: Heartbeat) -> None:
    cancelled = taken(index, heartbeat)
    index.redis.flushall()
    assert soon(lambda: index.redis.get("lease:job") == "mine")
    assert soon(lambda: index.workers() == 1)
    assert not cancelled.is_set()


def test_a_hung_engine_loses_its_leases_and_is_no_worker_any_more(
    index: Index, heartbeat: Heartbeat, steps: Steps
) -> None:
    taken(index, heartbeat)
    assert soon(lambda: index.workers() == 1)
    steps.hanging = True
    time.sleep(HANG / 2)
    assert index.leased("job")
    assert soon(lambda: not index.leased("job"))
    assert soon(lambda: index.workers() == 0)


def test_an_engine_that_was_only_slow_learns_whether_its_job_is_another_workers(
    index: Index, heartbeat: Heartbeat, steps: Steps
) -> None:
    kept, lost = taken(index, heartbeat), taken(index, heartbeat, "other", "too")
    steps.hanging = True
    assert soon(lambda: not index.leased("other"))
    assert index.take_lease("other", "theirs")
    steps.hanging = False
    assert soon(lost.is_set)
    assert soon(lambda: index.redis.get("lease:job") == "mine")
    assert not kept.is_set()


def test_an_idle_engine_is_not_taken_for_hung(index: Index, heartbeat: Heartbeat, steps: Steps) -> None:
    steps.hanging = True
    time.sleep(HANG * 3)
    assert index.workers() == 1
    taken(index, heartbeat)
    time.sleep(HANG / 2)
    assert index.redis.get("lease:job") == "mine"


def test_a_job_taken_twice_by_one_worker_has_two_holds(index: Index, heartbeat: Heartbeat) -> None:
    """Redis forgets the lease, and a repeated message comes before the next beat."""
    first = taken(index, heartbeat)
    index.redis.set("lease:job", "mine too")
    second = heartbeat.hold("job", "mine too")
    assert soon(first.is_set)
    heartbeat.release("mine")
    time.sleep(LEASE * 1.5)
    assert index.redis.get("lease:job") == "mine too"
    assert not second.is_set()


def test_a_worker_shows_itself_before_its_first_job(index: Index, heartbeat: Heartbeat) -> None:
    assert soon(lambda: index.workers() == 1, 0.5)


def test_a_beat_that_fails_is_not_the_last(
    index: Index, heartbeat: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(index, heartbeat)
    with monkeypatch.context() as patch:
        patch.setattr(index, "asked_to_cancel", lambda jobs: 1 / 0)
        time.sleep(LEASE / 2)
    time.sleep(LEASE * 1.5)
    assert index.redis.get("lease:job") == "mine"
