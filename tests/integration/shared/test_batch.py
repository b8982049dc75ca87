"""Batches: stopped after each write, and brought to their end by somebody else."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest

from emx_shared.ledger import (
    IdempotencyConflict,
    Ledger,
    NewBatch,
    NewJob,
    SubmissionAbandoned,
    SubmissionErased,
    advance_batch,
    batch_progress,
    cancel,
    erase,
    erase_batch,
    erase_group,
    failed_rows,
    object_keys,
    pause_batch,
    resume_batch,
    retry_batch,
    submit,
    submit_batch,
)
from emx_shared.ledger.batches.items import ended_items
from emx_shared.ledger.batches.manifest_pages import item_id, manifest_rows
from emx_shared.ledger.records import BatchPlace, BatchRecord, Delivery, Row, Tombstone
from support.mortality import as_courier, die_after_each_write, listed, new_job, reconcile, run
from support.object_stores import NewStore

HOOK = "https://example.org/hook"
IMAGES = [f"\x89PNG\r\n\x1a\n{n}".encode("latin-1") for n in range(6)]
"""No images, but of a kind that is accepted: what a worker makes of them is its affair."""


def batch(ledger: Ledger, size: int = 2, **options: object) -> BatchRecord:
    digests = [hashlib.sha256(data).hexdigest() for data in IMAGES[:size]]
    rows = [Row(image=f"file:{digest}", name=f"row {n}") for n, digest in enumerate(digests)]
    files = zip(digests, IMAGES[:size], strict=True)
    return submit_batch(ledger, NewBatch(**options), rows, files)  # type: ignore[arg-type]


def test_a_batch_stopped_anywhere_while_it_is_submitted_is_whole_or_nothing(ledger: Ledger) -> None:
    died = 0

    def operation(mortal: Ledger) -> None:
        batch(mortal)

    while die_after_each_write(ledger, operation):
        died += 1
    assert died >= 4
    reconcile(ledger)
    for entry in ledger.store.list("jobs/"):
        request = ledger.record(entry.key.split("/")[1])
        if isinstance(request, Tombstone) and request.why == "abandoned":
            assert not listed(ledger, object_keys.batch(request.id))


def test_a_batch_stopped_anywhere_ends_with_every_item(ledger: Ledger) -> None:
    request = batch(ledger, webhook_url=HOOK)

    def operation(mortal: Ledger) -> None:
        advance_batch(mortal, request.id)

    while die_after_each_write(ledger, operation):
        ledger.redis.connection.client.flushall()
    for row in range(2):
        run(ledger, item_id(request.id, row))
    assert batch_progress(ledger, request).counts == {"failed": 2, "open": 0}
    operation.writes = 0  # type: ignore[attr-defined]
    while die_after_each_write(ledger, operation):
        pass
    reconcile(ledger)
    outcome = ledger.outcome(request.id)
    assert outcome and outcome.state == "succeeded" and outcome.counts == {"failed": 2}
    assert listed(ledger, object_keys.OPEN) == []
    assert all("manifest-" in key for key in listed(ledger, object_keys.submissions(request.id)))
    assert listed(ledger, object_keys.OUTBOX) == [
        object_keys.outbox(Delivery.id_of(request.id, HOOK, "batch.completed"))
    ]


def test_cancelling_a_batch_cancels_its_items(ledger: Ledger) -> None:
    request = batch(ledger)
    advance_batch(ledger, request.id)
    assert cancel(ledger, request.id).state == "cancelled"
    reconcile(ledger)
    advance_batch(ledger, request.id)
    assert batch_progress(ledger, request).counts == {"cancelled": 2, "open": 0}


def test_only_a_window_of_a_batch_is_open_at_a_time(ledger: Ledger) -> None:
    small = narrow(ledger, batch_window=2)
    request = batch(small, size=5)
    seen = []
    for _ in range(5):
        advance_batch(small, request.id)
        waiting = [row for row in range(5) if ledger.record(item_id(request.id, row))]
        seen.append(len(waiting) - len(ended_items(ledger, request.id)))
        run(ledger, item_id(request.id, min(set(waiting) - set(ended_items(ledger, request.id)))))
    assert seen == [2, 2, 2, 2, 1]
    advance_batch(small, request.id)
    outcome = ledger.outcome(request.id)
    assert outcome and outcome.counts == {"failed": 5}


def test_a_paused_batch_submits_nothing_until_it_is_resumed(ledger: Ledger) -> None:
    request = batch(ledger)
    pause_batch(ledger, request.id)
    reconcile(ledger)
    assert not ledger.record(item_id(request.id, 0))
    resume_batch(ledger, request.id)
    reconcile(ledger)
    assert ledger.record(item_id(request.id, 0))


def test_an_item_without_an_image_fails_alone(ledger: Ledger) -> None:
    ledger.store.put(object_keys.upload("default", "u1"), IMAGES[0])
    ledger.store.put(object_keys.imported("default", "a/b.png"), IMAGES[1])
    ledger.store.put(object_keys.imported("other", "c.png"), IMAGES[2])
    ledger.store.put(object_keys.imported("default", "text"), b"no image")
    mine, _ = submit(ledger, new_job(data=IMAGES[3]))
    theirs, _ = submit(ledger, new_job(data=IMAGES[3], tenant="other"))
    images = ["upload:u1", "import:a/b.png", "import:c.png", "import:text", f"job:{mine.id}", f"job:{theirs.id}"]
    request = submit_batch(ledger, NewBatch(), [Row(image=image) for image in images])
    advance_batch(ledger, request.id)
    assert ended_items(ledger, request.id) == {2: "failed", 3: "failed", 5: "failed"}
    outcome = ledger.outcome(item_id(request.id, 3))
    assert outcome and outcome.failure and outcome.failure.code == "not-an-image"
    assert ledger.store.get(object_keys.job_input(item_id(request.id, 4), mine.input_sha256)) == IMAGES[3]
    assert listed(ledger, object_keys.UPLOADS) == []


def test_what_failed_can_be_tried_again_as_a_new_batch(ledger: Ledger) -> None:
    request = batch(ledger, size=3)
    advance_batch(ledger, request.id)
    assert not failed_rows(ledger, request)
    run(ledger, item_id(request.id, 1))
    again = retry_batch(ledger, request, failed_rows(ledger, request), NewBatch(retry_of=request.id))
    assert (again.rows, again.retry_of) == (1, request.id)
    advance_batch(ledger, again.id)
    item = ledger.job(item_id(again.id, 0))
    assert item and item.item and item.item.name == "row 1"
    assert ledger.input(item) == IMAGES[1]


def test_a_batchs_key_gives_the_same_batch_again(ledger: Ledger) -> None:
    first = batch(ledger, idempotency_key="k", fingerprint="f")
    assert batch(ledger, idempotency_key="k", fingerprint="f") == first
    with pytest.raises(IdempotencyConflict):
        batch(ledger, idempotency_key="k", fingerprint="other")


def test_of_an_erased_item_the_manifest_keeps_nothing(ledger: Ledger) -> None:
    for name in ("a", "b"):
        ledger.store.put(object_keys.imported("default", name), IMAGES[0])
    rows = [Row(image=f"import:{n}", name=f"row {n}", patient=f"patient {n}", indication="cough") for n in "ab"]
    request = submit_batch(ledger, NewBatch(), rows)
    advance_batch(ledger, request.id)
    erase(ledger, item_id(request.id, 0))
    kept = b"".join(ledger.store.get(entry.key) for entry in ledger.store.list(object_keys.batch(request.id)))
    assert b"patient a" not in kept and b"row a" not in kept and b"patient b" in kept
    run(ledger, item_id(request.id, 1))
    advance_batch(ledger, request.id)
    outcome = ledger.outcome(request.id)
    assert outcome and outcome.counts == {"cancelled": 1, "failed": 1}
    again = retry_batch(ledger, request, failed_rows(ledger, request), NewBatch())
    assert again.rows == 1


def test_an_entry_that_cannot_be_attended_keeps_no_other_waiting(ledger: Ledger) -> None:
    odd = submit_batch(ledger, NewBatch(), [Row(image="import:.parts/x")])
    broken, later = batch(ledger), batch(ledger)
    ledger.store.put(object_keys.page(broken.id, broken.nonce, 0), b"no page")
    reconcile(ledger)
    assert ended_items(ledger, odd.id) == {0: "failed"}
    assert ledger.record(item_id(later.id, 0))


def test_a_count_that_was_forgotten_is_not_begun_anew(ledger: Ledger) -> None:
    ledger.redis.batch_counts.item_ended("b", "failed")
    assert ledger.redis.batch_counts.get("b") is None
    ledger.redis.batch_counts.put("b", {"failed": 1}, seconds=1.0)
    ledger.redis.batch_counts.item_ended("b", "failed")
    assert ledger.redis.batch_counts.get("b") == {"cancelled": 0, "failed": 2}
    assert ledger.redis.connection.client.ttl("batch:b") > 0


def of_patients(ledger: Ledger, *patients: str, **options: object) -> BatchRecord:
    """A batch with an image for each, which came with it."""
    files = [(hashlib.sha256(image).hexdigest(), image) for image in IMAGES[: len(patients)]]
    rows = [Row(image=f"file:{sha256}", patient=p) for p, (sha256, _) in zip(patients, files, strict=True)]
    return submit_batch(ledger, NewBatch(**options), rows, files)  # type: ignore[arg-type]


def everything(ledger: Ledger) -> bytes:
    return b"".join(entry.key.encode() + ledger.store.get(entry.key) for entry in list(ledger.store.list("")))


def narrow(ledger: Ledger, **settings: object) -> Ledger:
    return replace(ledger, settings=ledger.settings.model_copy(update=settings))


def test_a_refused_item_stopped_anywhere_fails_once_and_is_read_by_nobody(ledger: Ledger) -> None:
    died = True
    for writes in count(1):
        request = submit_batch(ledger, NewBatch(item_webhook_url=HOOK), [Row(image="import:nothing", patient="p")])
        item = item_id(request.id, 0)
        died = die_after_each_write(ledger, lambda mortal, id=request.id: advance_batch(mortal, id), writes)  # type: ignore[misc]
        ledger.redis.connection.client.flushall()
        reconcile(narrow(ledger, abandon_after=-1.0))
        assert ("read", item) not in ledger.queue.sent  # type: ignore[attr-defined]
        outcome, whole = ledger.outcome(item), ledger.outcome(request.id)
        assert outcome and outcome.failure and outcome.failure.code == "no-image"
        assert whole and whole.counts == {"failed": 1}
        assert listed(ledger, object_keys.OPEN) == []
        assert len(listed(ledger, object_keys.OUTBOX)) == writes
        assert item in [job for job, _ in ledger.redis.listings.jobs("default", None, 10)]
        if not died:
            break
    assert writes > 6


def test_an_item_is_not_given_up_while_its_batch_goes_on(ledger: Ledger) -> None:
    request = batch(ledger)
    hasty = narrow(ledger, abandon_after=-1.0)
    died = 0
    while die_after_each_write(ledger, lambda mortal: advance_batch(mortal, request.id), died + 1):
        died += 1
        pause_batch(ledger, request.id)
        reconcile(hasty)
        resume_batch(ledger, request.id)
    advance_batch(ledger, request.id)
    for row in range(2):
        run(ledger, item_id(request.id, row))
    reconcile(ledger)
    outcome = ledger.outcome(request.id)
    assert outcome and outcome.counts == {"failed": 2}


def test_an_item_is_given_up_once_its_batch_has_ended(ledger: Ledger) -> None:
    request = batch(ledger)
    die_after_each_write(ledger, lambda mortal: advance_batch(mortal, request.id), 1)
    cancel(ledger, request.id)
    reconcile(narrow(ledger, abandon_after=-1.0))
    assert listed(ledger, object_keys.OPEN) == []


@pytest.mark.parametrize(
    ("new_store", "stride"), [("directory", 1), ("seaweed", 5), ("moto", 5)], indirect=["new_store"]
)
@pytest.mark.parametrize("begun", [False, True])
def test_erasing_a_patient_stopped_anywhere_reaches_every_row(
    ledger: Ledger, new_store: NewStore, stride: int, begun: bool
) -> None:
    """``stride``: an S3 server takes longer, and is stopped at every fifth write."""

    def erasing(mortal: Ledger) -> None:
        erase_group(mortal, "default", "patient", "a-patient")

    for writes in count(1, stride):
        ledger = replace(ledger, store=new_store())
        request = of_patients(ledger, "a-patient", "another", "a-patient")
        if begun:
            advance_batch(narrow(ledger, batch_window=1), request.id)
        died = die_after_each_write(ledger, erasing, writes)
        erasing(ledger)
        kept = everything(ledger)
        assert b"a-patient" not in kept and IMAGES[0] not in kept and IMAGES[2] not in kept
        assert IMAGES[1] in kept
        advance_batch(ledger, request.id)
        run(ledger, item_id(request.id, 1))
        ledger.redis.connection.client.flushall()  # counts are a minute old at most
        advance_batch(ledger, request.id)
        outcome = ledger.outcome(request.id)
        assert outcome and outcome.counts == {"cancelled": 2, "failed": 1}
        assert listed(ledger, object_keys.ERASE) == listed(ledger, object_keys.OPEN) == []
        if not died:
            break
    assert writes > 15


def test_erasing_a_patient_once_begun_is_ended_by_the_reconciler(ledger: Ledger) -> None:
    request = of_patients(ledger, "a-patient", "another")
    pause_batch(ledger, request.id)
    die_after_each_write(ledger, lambda mortal: erase_group(mortal, "default", "patient", "a-patient"), 1)
    reconcile(ledger)
    kept = everything(ledger)
    assert b"a-patient" not in kept and IMAGES[0] not in kept and IMAGES[1] in kept


def test_a_row_that_is_being_submitted_while_it_is_erased_comes_too_late(ledger: Ledger) -> None:
    request = of_patients(ledger, "a-patient")
    erase_group(ledger, "default", "patient", "a-patient")
    late = NewJob(
        IMAGES[0],
        "image/png",
        patient="a-patient",
        id=item_id(request.id, 0),
        item=BatchPlace(batch=request.id, row=0),
    )
    with pytest.raises(SubmissionErased):
        submit(ledger, late)
    reconcile(ledger)
    assert IMAGES[0] not in everything(ledger)
    assert not listed(ledger, "groups/") and not listed(ledger, object_keys.OPEN + item_id(request.id, 0))


def test_after_a_batch_was_cancelled_its_rows_can_still_be_erased(ledger: Ledger) -> None:
    request = of_patients(ledger, "a-patient")
    cancel(ledger, request.id)
    reconcile(ledger)
    assert b"a-patient" in everything(ledger)
    assert erase_group(ledger, "default", "patient", "a-patient") == 1
    assert b"a-patient" not in everything(ledger)


@pytest.mark.parametrize("window", [1, 10])
def test_erasing_a_batch_stopped_anywhere_leaves_nothing_of_it(ledger: Ledger, window: int) -> None:
    request = of_patients(ledger, "a-patient", "another", "third")
    advance_batch(narrow(ledger, batch_window=window), request.id)
    run(ledger, item_id(request.id, 0))

    def operation(mortal: Ledger) -> None:
        erase_batch(mortal, request)
        as_courier(mortal, request.id)

    died = 0
    while die_after_each_write(ledger, operation, died + 1):
        died += 1
        ledger.redis.connection.client.delete(f"lease:erasing:{request.id}")  # it lapsed
    assert died > 10
    reconcile(ledger)
    kept = everything(ledger)
    assert not [image for image in IMAGES if image in kept]
    assert b"a-patient" not in kept and b"third" not in kept
    assert (
        listed(ledger, "batches/") == listed(ledger, object_keys.OPEN) == listed(ledger, object_keys.ERASE) == []
    )
    found = ledger.record(request.id)
    assert isinstance(found, Tombstone) and found.why == "erased"


@pytest.mark.parametrize("same", [False, True])
def test_of_two_batches_with_one_key_one_counts(ledger: Ledger, same: bool) -> None:
    def rows() -> Iterator[Row]:
        """While they are read, a twin gets in first."""
        first.append(batch(ledger, idempotency_key="k", fingerprint="f"))
        yield Row(image="import:other")

    first: list[BatchRecord] = []
    mine = NewBatch(idempotency_key="k", fingerprint="f" if same else "other")
    if same:
        assert submit_batch(ledger, mine, rows()) == first[0]
    else:
        with pytest.raises(IdempotencyConflict):
            submit_batch(ledger, mine, rows())
    assert len([key for key in listed(ledger, object_keys.batch(first[0].id)) if "manifest-" in key]) == 1
    assert [row.name for _, row in manifest_rows(ledger, first[0])] == ["row 0", "row 1"]


def test_the_key_of_a_batch_that_was_given_up_can_be_used_again(ledger: Ledger) -> None:
    def rows() -> Iterator[Row]:
        reconcile(narrow(ledger, abandon_after=-1.0))
        yield Row(image="import:x")

    new = NewBatch(idempotency_key="k", fingerprint="f")
    with pytest.raises(SubmissionAbandoned):
        submit_batch(ledger, new, rows())
    assert listed(ledger, "batches/") == []
    assert ledger.record(submit_batch(ledger, new, [Row(image="import:x")]).id)


def test_an_image_that_came_too_late_is_found_by_a_retry(ledger: Ledger) -> None:
    request = submit_batch(ledger, NewBatch(), [Row(image="import:late.png")])
    advance_batch(ledger, request.id)
    ledger.store.put(object_keys.imported("default", "late.png"), IMAGES[0])
    again = retry_batch(ledger, request, failed_rows(ledger, request), NewBatch())
    advance_batch(ledger, again.id)
    item = ledger.job(item_id(again.id, 0))
    assert item and ledger.input(item) == IMAGES[0]


def test_an_upload_that_a_batch_waits_to_submit_is_kept(ledger: Ledger) -> None:
    for name in ("awaited", "cancelled", "forgotten"):
        ledger.store.put(object_keys.upload("default", name), IMAGES[0])
    request = submit_batch(ledger, NewBatch(), [Row(image="upload:awaited")])
    pause_batch(ledger, request.id)
    cancel(ledger, submit_batch(ledger, NewBatch(), [Row(image="upload:cancelled")]).id)
    reconcile(narrow(ledger, upload_ttl=-1.0))
    assert listed(ledger, object_keys.UPLOADS) == [object_keys.upload("default", "awaited")]
    resume_batch(ledger, request.id)
    advance_batch(ledger, request.id)
    item = ledger.job(item_id(request.id, 0))
    assert item and ledger.input(item) == IMAGES[0]


def test_a_key_is_of_no_use_from_the_moment_its_batchs_erasure_begins(ledger: Ledger) -> None:
    request = batch(ledger, idempotency_key="k", fingerprint="f")
    erase_batch(ledger, request)
    with pytest.raises(SubmissionErased):
        batch(ledger, idempotency_key="k", fingerprint="f")
    as_courier(ledger, request.id)
    with pytest.raises(SubmissionErased):
        batch(ledger, idempotency_key="k", fingerprint="f")
