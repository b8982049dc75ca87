"""When an endpoint that doesn't answer is left alone, and when it is tried again."""

import pytest

from emx_gateway.courier import endpoint_health
from emx_gateway.courier.endpoint_health import FAILURES_IN_A_ROW, FIRST_PAUSE, LONGEST_PAUSE, EndpointHealth


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(endpoint_health, "time", made)
    return made


def failing(health: EndpointHealth, times: int) -> None:
    for _ in range(times):
        health.failed("a", None)


def test_an_endpoint_is_paused_after_some_failures_in_a_row_and_for_longer_each_time(clock: Clock) -> None:
    health = EndpointHealth()
    failing(health, FAILURES_IN_A_ROW - 1)
    assert health.seconds_paused("a") == 0
    pauses = []
    for _ in range(12):
        failing(health, 1)
        pauses.append(health.seconds_paused("a"))
        clock.now += pauses[-1]
    assert pauses[:4] == [FIRST_PAUSE * factor for factor in (1, 2, 4, 8)] and pauses[-1] == LONGEST_PAUSE
    assert health.seconds_paused("b") == 0


def test_after_a_pause_one_try_shows_whether_it_answers_again(clock: Clock) -> None:
    health = EndpointHealth()
    failing(health, FAILURES_IN_A_ROW)
    clock.now += FIRST_PAUSE
    assert health.seconds_paused("a") == 0 and health.seconds_paused("a") > 0
    health.untried("a")
    assert health.seconds_paused("a") == 0 and health.seconds_paused("a") > 0
    health.succeeded("a")
    assert [health.seconds_paused("a") for _ in range(3)] == [0, 0, 0]


def test_an_endpoint_that_asks_for_it_is_left_alone_at_once(clock: Clock) -> None:
    health = EndpointHealth()
    health.failed("a", 60.0)
    assert health.seconds_paused("a") == 60
    clock.now += 61
    assert [health.seconds_paused("a") for _ in range(2)] == [0, 0]
