"""Which images the rows of a batch name, and which of its failures are tried again."""

from collections import Counter

import pytest

from emx_shared.contracts.states import JobState
from emx_shared.ledger import (
    Ledger,
    NewBatch,
    advance_batch,
    batch_progress,
    cancel,
    erase,
    is_permanent_failure,
    object_keys,
    pause_batch,
    resume_batch,
    submit_batch,
)
from emx_shared.ledger.batches.items import ended_items, submit_items
from emx_shared.ledger.batches.manifest_pages import item_id
from emx_shared.ledger.jobs.erasure import announce_erasure, end_erasure, item_tombstone
from emx_shared.ledger.records import Outcome, Row
from support.mortality import die_after_each_write, listed, reconcile, run
from support.object_stores import STORES

PNG = b"\x89PNG\r\n\x1a\n"


def uploaded(ledger: Ledger, name: str) -> str:
    ledger.store.put(object_keys.upload("default", name), PNG + name.encode())
    return f"upload:{name}"


@pytest.mark.parametrize(
    ("new_store", "size"), [("directory", 1203), *((name, 5) for name in STORES)], indirect=["new_store"]
)
def test_an_upload_named_by_several_rows_is_read_for_each(ledger: Ledger, size: int) -> None:
    one, other = uploaded(ledger, "one"), uploaded(ledger, "other")
    images = [one if row % 2 else other for row in range(size)]
    request = submit_batch(ledger, NewBatch(), [Row(image=image) for image in images])
    submit_items(ledger, request, size)
    assert ended_items(ledger, request.id) == {}
    for row in (0, 1, size - 2, size - 1):
        job = ledger.job(item_id(request.id, row))
        assert job and ledger.input(job) == PNG + images[row].partition(":")[2].encode()
    assert listed(ledger, object_keys.UPLOADS) == []


def test_a_batch_stopped_anywhere_loses_no_upload_that_a_later_row_names(ledger: Ledger) -> None:
    one = uploaded(ledger, "one")
    request = submit_batch(ledger, NewBatch(), [Row(image=one) for _ in range(3)])

    def operation(mortal: Ledger) -> None:
        advance_batch(mortal, request.id)

    while die_after_each_write(ledger, operation):
        ledger.redis.connection.client.flushall()
    assert ended_items(ledger, request.id) == {}
    assert all(ledger.job(item_id(request.id, row)) for row in range(3))
    assert listed(ledger, object_keys.UPLOADS) == []


def test_an_upload_that_is_no_image_does_not_stay(ledger: Ledger) -> None:
    ledger.store.put(object_keys.upload("default", "text"), b"no image")
    request = submit_batch(ledger, NewBatch(), [Row(image="upload:text")] * 2)
    advance_batch(ledger, request.id)
    assert ended_items(ledger, request.id) == {0: "failed", 1: "failed"}
    assert listed(ledger, object_keys.UPLOADS) == []


def test_erasing_one_row_keeps_the_upload_of_another(ledger: Ledger) -> None:
    one = uploaded(ledger, "one")
    request = submit_batch(ledger, NewBatch(paused=True), [Row(image=one, patient="p"), Row(image=one)])
    erase_row(ledger, request.id, 0)
    assert listed(ledger, object_keys.UPLOADS) == [object_keys.upload("default", "one")]
    resume_batch(ledger, request.id)
    advance_batch(ledger, request.id)
    assert ledger.job(item_id(request.id, 1))
    assert listed(ledger, object_keys.UPLOADS) == []


def erase_row(ledger: Ledger, batch: str, row: int) -> None:
    record = ledger.batch(batch)
    assert record
    announce_erasure(ledger, item_tombstone(record, row, ledger.now()))
    end_erasure(ledger, item_id(batch, row))


def test_a_batch_that_starts_paused_reads_nothing_until_it_is_resumed(ledger: Ledger) -> None:
    request = submit_batch(ledger, NewBatch(paused=True), [Row(image="upload:later")])
    reconcile(ledger)
    assert not ledger.record(item_id(request.id, 0))
    uploaded(ledger, "later")
    resume_batch(ledger, request.id)
    reconcile(ledger)
    assert ledger.job(item_id(request.id, 0))
    pause_batch(ledger, request.id)
    resume_batch(ledger, request.id)


def test_a_failure_of_the_image_is_permanent_and_one_of_the_model_is_not(ledger: Ledger) -> None:
    ledger.store.put(object_keys.imported("default", "text"), b"no image")
    images = ["import:text", "import:missing", uploaded(ledger, "one")]
    request = submit_batch(ledger, NewBatch(), [Row(image=image) for image in images])
    advance_batch(ledger, request.id)
    run(ledger, item_id(request.id, 2))
    assert [is_permanent_failure(ledger, request, row) for row in range(3)] == [True, False, False]


def test_an_item_that_redis_counted_twice_makes_no_wrong_count(ledger: Ledger) -> None:
    request = submit_batch(ledger, NewBatch(paused=True), [Row(image="import:x") for _ in range(7)])
    ledger.redis.batch_counts.put(request.id, {"succeeded": 8}, 0.1)
    assert batch_progress(ledger, request).counts == {"open": 7}
    exact = Outcome(state=JobState.SUCCEEDED, finished_at=ledger.now(), counts={"succeeded": 6, "failed": 1})
    ledger.redis.batch_counts.put(request.id, {"succeeded": 7}, 0.1)
    assert batch_progress(ledger, request, exact).counts == {"succeeded": 6, "failed": 1, "open": 0}


def test_a_cancelled_batch_counts_rows_without_a_job_as_cancelled(ledger: Ledger) -> None:
    request = submit_batch(ledger, NewBatch(paused=True), [Row(image="import:x") for _ in range(7)])
    outcome = cancel(ledger, request.id)
    assert batch_progress(ledger, request).counts == {"open": 7}
    progress = batch_progress(ledger, request, outcome)
    assert (progress.counts, progress.ended) == ({"cancelled": 7, "open": 0}, Counter())


def test_an_erased_item_leaves_no_name(ledger: Ledger) -> None:
    request = submit_batch(ledger, NewBatch(), [Row(image=uploaded(ledger, "one"), name="mrs-jones.png")])
    advance_batch(ledger, request.id)
    erase(ledger, item_id(request.id, 0))
    kept = b"".join(entry.key.encode() + ledger.store.get(entry.key) for entry in list(ledger.store.list("")))
    assert b"mrs-jones" not in kept
