"""What Redis knows of jobs, and what is asked of it while it hangs."""

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from redis.exceptions import ConnectionError as RedisUnreachable
from redis.exceptions import TimeoutError as RedisTimeout

from emx_shared.contracts.states import JobState
from emx_shared.redis_state import RedisState
from emx_shared.redis_state.circuit_breaker import CircuitBreaker
from support.hanging_proxy import hanging_proxy

AT = datetime(2026, 1, 1, tzinfo=UTC)


def ids(state: RedisState, wanted: JobState | None = None) -> list[str]:
    return [id for id, _ in state.listings.jobs("t", None, 10, wanted)]


def test_a_job_is_listed_by_its_state(redis_state: RedisState) -> None:
    listings = redis_state.listings
    for number, job in enumerate("abc"):
        listings.add_job("t", job, AT + timedelta(seconds=number))
    assert ids(redis_state) == ids(redis_state, JobState.QUEUED) == ["c", "b", "a"]
    listings.job_started("t", "b", AT + timedelta(seconds=1))
    assert ids(redis_state, JobState.RUNNING) == ["b"]
    listings.job_ended("t", "b", AT + timedelta(seconds=1), JobState.FAILED)
    assert ids(redis_state, JobState.RUNNING) == []
    assert ids(redis_state, JobState.QUEUED) == ["c", "a"]
    assert ids(redis_state, JobState.FAILED) == ["b"]
    listings.add_job("t", "b", AT + timedelta(seconds=1))  # by a submission whose job ended before it was listed
    assert ids(redis_state, JobState.QUEUED) == ["c", "a"]
    assert ids(redis_state) == ["c", "b", "a"]
    assert listings.tenants() == ["t"]
    for job in "bc":
        listings.remove_job("t", job)
    assert ids(redis_state) == ids(redis_state, JobState.QUEUED) == ["a"]
    assert ids(redis_state, JobState.FAILED) == []


def test_what_is_alive_is_counted_until_its_last_sign_has_lapsed(redis_state: RedisState) -> None:
    redis_state.workers.announce("one", 1)
    redis_state.workers.announce("two", 60)
    assert redis_state.workers.count() == 2
    assert redis_state.couriers.count() == 0
    time.sleep(2.1)
    assert redis_state.workers.count() == 1


def test_of_what_is_due_each_delivery_is_claimed_once(redis_state: RedisState) -> None:
    due = redis_state.due_deliveries
    for number, delivery in enumerate("abcd"):
        due.note(delivery, AT + timedelta(seconds=number))
    assert due.claim(AT + timedelta(seconds=2), 2, 30) == ["a", "b"]
    assert due.claim(AT + timedelta(seconds=2), 2, 30) == ["c"]
    assert due.claim(AT + timedelta(seconds=2), 2, 30) == []
    assert due.claim(AT + timedelta(seconds=33), 9, 30) == ["d", "a", "b", "c"]  # nothing was heard of them
    due.forget("a")
    assert due.unknown_among(["a", "b"]) == ["a"]


def test_a_count_that_redis_refuses_is_not_believed(redis_state: RedisState) -> None:
    client = redis_state.connection.client
    redis_state.batch_counts.put("b", {"failed": 3}, 0.1)
    redis_state.batch_counts.item_ended("b", "failed")
    assert redis_state.batch_counts.get("b") == {"cancelled": 0, "failed": 4}
    client.config_set("maxmemory", 1)
    redis_state.batch_counts.item_ended("b", "failed")
    client.config_set("maxmemory", 0)
    assert redis_state.batch_counts.get("b") is None


@pytest.mark.parametrize(("seconds", "lifetime"), [(0.01, 5), (1.0, 20), (90.0, 60)])
def test_counts_last_the_longer_the_dearer_they_were(
    redis_state: RedisState, seconds: float, lifetime: int
) -> None:
    redis_state.batch_counts.put("b", {"failed": 3}, seconds)
    assert redis_state.connection.client.ttl("batch:b") == lifetime


def test_a_lease_that_was_taken_unheard_can_be_taken_again_by_its_owner_alone(redis_state: RedisState) -> None:
    assert redis_state.leases.take("job", "mine")
    assert redis_state.leases.take("job", "mine")
    assert not redis_state.leases.take("job", "theirs")


def test_while_redis_hangs_one_call_waits_for_it_and_the_others_dont(redis_url: str) -> None:
    with hanging_proxy(redis_url.removeprefix("redis://").removesuffix("/0")) as proxy:
        state = RedisState(f"redis://{proxy.address}/0")
        assert state.ping()
        proxy.hang.set()
        began = time.monotonic()
        assert not state.ping()
        for _ in range(1000):
            assert not state.leases.is_held("job")
            with pytest.raises(RedisUnreachable):
                state.listings.jobs("t", None, 10)
        assert time.monotonic() - began < 30  # not 2,000 time-outs
        state.close()


def test_after_a_time_out_one_call_at_a_time_tries_again() -> None:
    breaker, release = CircuitBreaker(), threading.Event()

    def call(error: Exception | None = None, wait: bool = False) -> None:
        with breaker.call():
            if wait:
                release.wait(10)
            if error:
                raise error

    with pytest.raises(ValueError):
        call(ValueError())
    call()
    with pytest.raises(RedisTimeout):
        call(RedisTimeout())
    with pytest.raises(RedisUnreachable):
        call()
    time.sleep(1.1)
    trying = threading.Thread(target=call, kwargs={"wait": True})
    trying.start()
    time.sleep(0.1)
    with pytest.raises(RedisUnreachable):
        call()
    release.set()
    trying.join()
    call()
