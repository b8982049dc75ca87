"""How long a batch will still take, by the pace of the items that a model read last."""

from datetime import datetime, timedelta

import pytest

from emx_shared.contracts.states import JobState
from emx_shared.ledger import Ledger, NewBatch, advance_batch, finish, resume_batch, submit_batch
from emx_shared.ledger.batches.manifest_pages import item_id
from emx_shared.ledger.records import Failure, Outcome, Row
from emx_shared.redis_state import RedisState


def read(redis_state: RedisState, now: datetime, *spans: tuple[float, float]) -> None:
    """Items that began and ended so many seconds before now."""
    for began, ended in spans:
        redis_state.batch_pace.item_read("b", now - timedelta(seconds=began), now - timedelta(seconds=ended))


def test_items_that_are_read_together_count_from_when_they_began(redis_state: RedisState, ledger: Ledger) -> None:
    now = ledger.now()
    assert redis_state.batch_pace.items_per_second("b", now) is None
    read(redis_state, now, *[(10.0, 0.0)] * 32)
    assert redis_state.batch_pace.items_per_second("b", now) == pytest.approx(3.2, rel=0.01)


def test_only_the_last_items_count(redis_state: RedisState, ledger: Ledger) -> None:
    now = ledger.now()
    quick = [(1000 - n * 0.01, 999.99 - n * 0.01) for n in range(500)]
    read(redis_state, now, *quick, *[(300 - n, 299 - n) for n in range(300)])
    assert redis_state.batch_pace.items_per_second("b", now) == pytest.approx(1, rel=0.02)


def test_a_stand_still_shows(redis_state: RedisState, ledger: Ledger) -> None:
    now = ledger.now()
    read(redis_state, now, *[(1010.0 - n, 1009.0 - n) for n in range(10)])
    assert redis_state.batch_pace.items_per_second("b", now) == pytest.approx(0.01, rel=0.02)


def test_a_pause_does_not_count_as_slowness(ledger: Ledger) -> None:
    request = submit_batch(ledger, NewBatch(), [Row(image="import:x")])
    ledger.redis.batch_pace.item_read(request.id, ledger.now() - timedelta(hours=3), ledger.now())
    resume_batch(ledger, request.id)
    assert ledger.redis.batch_pace.items_per_second(request.id, ledger.now()) is None


def test_items_that_no_model_read_do_not_count_as_speed(ledger: Ledger) -> None:
    for name in ("x", "y"):
        ledger.store.put(f"imports/default/{name}", b"\x89PNG\r\n\x1a\n")
    images = ["missing"] * 8 + ["x", "y"]
    request = submit_batch(ledger, NewBatch(), [Row(image=f"import:{image}") for image in images])
    advance_batch(ledger, request.id)  # eight fail at once
    began = ledger.now() - timedelta(seconds=20)
    fault = Failure(code="bad-image", message="damaged")
    end = {"started_at": began, "finished_at": began + timedelta(milliseconds=3)}
    finish(ledger, item_id(request.id, 8), Outcome(state=JobState.FAILED, failure=fault, **end))  # type: ignore[arg-type]
    assert ledger.redis.batch_pace.items_per_second(request.id, ledger.now()) is None
    slow = Outcome(state=JobState.SUCCEEDED, started_at=began, finished_at=ledger.now())
    finish(ledger, item_id(request.id, 9), slow)
    assert ledger.redis.batch_pace.items_per_second(request.id, ledger.now()) == pytest.approx(0.05, rel=0.05)
