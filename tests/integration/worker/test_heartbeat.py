"""The heartbeat with a real Redis: leases are kept, lost and renewed."""

import time
from collections.abc import Callable, Iterator

import pytest

from emx_shared.redis_state import RedisState
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
def heartbeat(redis_state: RedisState, steps: Steps) -> Iterator[Heartbeat]:
    made = Heartbeat(redis_state, LEASE, HANG, steps, "w1")
    yield made
    made.close()


def soon(true: Callable[[], object], seconds: float = 4) -> bool:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if true():
            return True
        time.sleep(0.02)
    return False


def taken(redis_state: RedisState, heartbeat: Heartbeat, job: str = "job", token: str = "mine"):  # type: ignore[no-untyped-def]
    assert redis_state.leases.take(job, token)
    return heartbeat.hold(job, token)


def test_a_lease_is_kept_as_long_as_it_is_held(redis_state: RedisState, heartbeat: Heartbeat) -> None:
    cancelled = taken(redis_state, heartbeat)
    for _ in range(25):
        time.sleep(0.1)
        assert redis_state.connection.client.get("lease:job") == "mine"
    assert not cancelled.is_set()
    heartbeat.release("mine")
    assert soon(lambda: not redis_state.leases.is_held("job"))


def test_a_cancellation_is_noticed_by_the_job_alone(redis_state: RedisState, heartbeat: Heartbeat) -> None:
    cancelled, other = taken(redis_state, heartbeat), taken(redis_state, heartbeat, "other", "too")
    redis_state.cancellations.request("job")
    assert soon(cancelled.is_set)
    assert not other.is_set()


def test_a_lease_that_another_worker_took_is_given_up(redis_state: RedisState, heartbeat: Heartbeat) -> None:
    lost = taken(redis_state, heartbeat)
    redis_state.connection.client.set("lease:job", "theirs")
    assert soon(lost.is_set)
    assert redis_state.connection.client.get("lease:job") == "theirs"


def test_leases_are_made_anew_after_redis_lost_its_memory(redis_state: RedisState, heartbeat: Heartbeat) -> None:
    cancelled = taken(redis_state, heartbeat)
    redis_state.connection.client.flushall()
    assert soon(lambda: redis_state.connection.client.get("lease:job") == "mine")
    assert soon(lambda: redis_state.workers.count() == 1)
    assert not cancelled.is_set()


def test_a_hung_engine_loses_its_leases_and_is_no_worker_any_more(
    redis_state: RedisState, heartbeat: Heartbeat, steps: Steps
) -> None:
    taken(redis_state, heartbeat)
    assert soon(lambda: redis_state.workers.count() == 1)
    steps.hanging = True
    time.sleep(HANG / 2)
    assert redis_state.leases.is_held("job")
    assert soon(lambda: not redis_state.leases.is_held("job"))
    assert soon(lambda: redis_state.workers.count() == 0)


def test_an_engine_that_was_only_slow_learns_whether_its_job_is_another_workers(
    redis_state: RedisState, heartbeat: Heartbeat, steps: Steps
) -> None:
    kept, lost = taken(redis_state, heartbeat), taken(redis_state, heartbeat, "other", "too")
    steps.hanging = True
    assert soon(lambda: not redis_state.leases.is_held("other"))
    assert redis_state.leases.take("other", "theirs")
    steps.hanging = False
    assert soon(lost.is_set)
    assert soon(lambda: redis_state.connection.client.get("lease:job") == "mine")
    assert not kept.is_set()


def test_an_idle_engine_is_not_taken_for_hung(redis_state: RedisState, heartbeat: Heartbeat, steps: Steps) -> None:
    steps.hanging = True
    time.sleep(HANG * 3)
    give_up = time.monotonic() + 10  # on a busy machine a beat may come late
    while not redis_state.workers.count() and time.monotonic() < give_up:
        time.sleep(0.05)
    assert redis_state.workers.count() == 1
    taken(redis_state, heartbeat)
    time.sleep(HANG / 2)
    assert redis_state.connection.client.get("lease:job") == "mine"


def test_a_job_taken_twice_by_one_worker_has_two_holds(redis_state: RedisState, heartbeat: Heartbeat) -> None:
    """Redis forgets the lease, and a repeated message comes before the next beat."""
    first = taken(redis_state, heartbeat)
    redis_state.connection.client.set("lease:job", "mine too")
    second = heartbeat.hold("job", "mine too")
    assert soon(first.is_set)
    heartbeat.release("mine")
    time.sleep(LEASE * 1.5)
    assert redis_state.connection.client.get("lease:job") == "mine too"
    assert not second.is_set()


def test_a_worker_shows_itself_before_its_first_job(redis_state: RedisState, heartbeat: Heartbeat) -> None:
    assert soon(lambda: redis_state.workers.count() == 1, 0.5)


def test_a_beat_that_fails_is_not_the_last(
    redis_state: RedisState, heartbeat: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(redis_state, heartbeat)
    with monkeypatch.context() as patch:
        patch.setattr(redis_state.cancellations, "requested_among", lambda jobs: 1 / 0)
        time.sleep(LEASE / 2)
    time.sleep(LEASE * 1.5)
    assert redis_state.connection.client.get("lease:job") == "mine"


def test_a_lease_that_was_given_back_during_a_beat_stays_free(
    redis_state: RedisState, heartbeat: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    extend, extended = redis_state.leases.extend, list[str]()

    def job_ends_before_it_is_extended(name: str, token: str) -> bool:
        heartbeat.release(token)
        redis_state.leases.release(name, token)
        extended.append(name)
        return extend(name, token)

    assert redis_state.leases.take("job", "mine")
    monkeypatch.setattr(redis_state.leases, "extend", job_ends_before_it_is_extended)
    heartbeat.hold("job", "mine")
    assert soon(lambda: extended)
    assert soon(lambda: not redis_state.leases.is_held("job"), LEASE / 4)
