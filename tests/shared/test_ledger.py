"""Every operation is stopped after each of its writes, and brought to its end by somebody else."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from shared.ledger import (
    Answer,
    Conflict,
    Ledger,
    NewBatch,
    NewJob,
    Reconciler,
    cancel,
    deliver,
    erase,
    erase_group,
    expand,
    finish,
    hand_back,
    keys,
    pause,
    progress,
    resume,
    retry_failed,
    start,
    submit,
    submit_batch,
)
from shared.ledger.items import ended_items
from shared.ledger.manifest import item_id
from shared.ledger.reconcile import POISON_DEATHS
from shared.ledger.records import Delivery, Failure, JobState, Outcome, Request, Row
from shared.queue import QueueAway
from shared.store import Entry, Store

HOOK = "https://example.org/hook"


class Killed(BaseException):
    """The process is gone."""


class MortalStore(Store):
    """Passes everything on, and dies right after the ``writes``-th write."""

    def __init__(self, store: Store, writes: int) -> None:
        self._store, self._left = store, writes

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Killed

    def get(self, key: str) -> bytes:
        return self._store.get(key)

    def size(self, key: str) -> int:
        return self._store.size(key)

    def put(self, key: str, data: bytes) -> None:
        self._store.put(key, data)
        self._count()

    def put_if_absent(self, key: str, data: bytes) -> bool:
        won = self._store.put_if_absent(key, data)
        self._count()
        return won

    def delete(self, key: str) -> None:
        self._store.delete(key)
        self._count()

    def list(self, prefix: str):  # type: ignore[no-untyped-def]
        return self._store.list(prefix)

    def now(self):  # type: ignore[no-untyped-def]
        return self._store.now()


def die_after_each_write(ledger: Ledger, operation: Callable[[Ledger], object]) -> bool:
    """Run ``operation`` until it has died once after its n-th write, n = 1, 2, … False once it gets through."""
    operation.writes = getattr(operation, "writes", 0) + 1  # type: ignore[attr-defined]
    try:
        operation(replace(ledger, store=MortalStore(ledger.store, operation.writes)))  # type: ignore[attr-defined]
    except Killed:
        return True
    return False


def reconcile(ledger: Ledger) -> None:
    """Rounds as if the epoch had been there all along."""
    ledger.index.begin_epoch()
    reconciler = Reconciler(ledger)
    for _ in range(3):
        reconciler.round()


def new(data: bytes = b"an image", **fields: object) -> NewJob:
    return NewJob(data, "image/png", **fields)  # type: ignore[arg-type]


def failure(ledger: Ledger) -> Outcome:
    return Outcome(kind="failure", failure=Failure(code="x", message="x"), finished_at=ledger.store.now())


def listed(ledger: Ledger, prefix: str) -> list[str]:
    return [entry.key for entry in ledger.store.list(prefix)]


def run(ledger: Ledger, job: str) -> None:
    started = start(ledger, job, "token")
    assert started
    finish(ledger, job, failure(ledger))
    ledger.index.release_lease(job, "token")


def test_a_submission_stopped_anywhere_is_either_whole_or_nothing(ledger: Ledger) -> None:
    def operation(mortal: Ledger) -> None:
        submit(mortal, new(webhook_url=HOOK))

    died = 0
    while die_after_each_write(ledger, operation):
        died += 1
        reconcile(ledger)
        jobs = [key.removeprefix(keys.OPEN) for key in listed(ledger, keys.OPEN)]
        for job in jobs:
            assert ("read", job) in ledger.queue.sent  # type: ignore[attr-defined]
            run(ledger, job)
        assert listed(ledger, keys.OPEN) == []
    assert died == 3
    committed = [key for key in listed(ledger, "jobs/") if "input-" in key]
    assert len(committed) == 2  # the one that died after its commit point, and the one that got through


@pytest.mark.parametrize("end", ["finish", "cancel"])
def test_an_ending_stopped_anywhere_ends_once_with_its_webhook(ledger: Ledger, end: str) -> None:
    died = 0
    while True:
        request, _ = submit(ledger, new(webhook_url=HOOK))

        def operation(mortal: Ledger, job: str = request.id) -> None:
            finish(mortal, job, failure(mortal)) if end == "finish" else cancel(mortal, job)

        operation.writes = died  # type: ignore[attr-defined]
        stopped = die_after_each_write(ledger, operation)
        first = ledger.outcome(request.id)
        ledger.index.redis.flushall()  # and Redis loses its memory as well
        reconcile(ledger)
        assert ledger.outcome(request.id) == first
        state = "failed" if end == "finish" else "cancelled"
        assert listed(ledger, keys.OPEN) == []
        assert f"outbox/{Delivery.id_of(request.id, HOOK, f'job.{state}')}" in listed(ledger, keys.OUTBOX)
        if not stopped:
            break
        died += 1
    assert died == 3


def test_the_first_outcome_stays(ledger: Ledger) -> None:
    request, _ = submit(ledger, new())
    assert cancel(ledger, request.id).kind == "cancelled"
    assert finish(ledger, request.id, failure(ledger)).kind == "cancelled"
    other, _ = submit(ledger, new())
    finish(ledger, other.id, failure(ledger))
    assert cancel(ledger, other.id).kind == "failure"


def test_a_key_gives_the_same_job_again(ledger: Ledger) -> None:
    first, _ = submit(ledger, new(idempotency_key="k"))
    again, _ = submit(ledger, new(idempotency_key="k"))
    assert again == first
    assert submit(ledger, new(idempotency_key="k", tenant="other"))[0].id != first.id
    with pytest.raises(Conflict):
        submit(ledger, NewJob(b"another image", "image/png", idempotency_key="k"))


def test_an_abandoned_key_can_be_used_again(ledger: Ledger) -> None:
    def operation(mortal: Ledger) -> None:
        submit(mortal, new(idempotency_key="k"))

    assert die_after_each_write(ledger, operation)
    time.sleep(0.05)
    reconcile(ledger)
    assert listed(ledger, keys.OPEN) == []
    request, _ = submit(ledger, new(idempotency_key="k"))
    assert request.status == "committed"


def test_only_one_worker_starts_a_job(ledger: Ledger) -> None:
    request, _ = submit(ledger, new())
    assert start(ledger, request.id, "a")
    assert start(ledger, request.id, "b") is None
    finish(ledger, request.id, failure(ledger))
    ledger.index.release_lease(request.id, "a")
    assert start(ledger, request.id, "c") is None


def test_a_job_that_kills_its_workers_is_poison(ledger: Ledger) -> None:
    request, _ = submit(ledger, new())
    for death in range(POISON_DEATHS):
        started = start(ledger, request.id, f"token {death}")
        assert started
        assert started.alone is (death > 0)
        ledger.index.redis.delete(f"lease:{request.id}")  # it lapsed
        reconcile(ledger)
    outcome = ledger.outcome(request.id)
    assert outcome and outcome.failure and outcome.failure.code == "poison"


def test_handing_back_and_losing_redis_are_no_deaths(ledger: Ledger) -> None:
    request, _ = submit(ledger, new())
    for number in range(POISON_DEATHS + 1):
        started = start(ledger, request.id, f"token {number}")
        assert started and not started.alone
        if number % 2:
            hand_back(ledger, started)
        else:
            ledger.index.redis.flushall()
            reconcile(ledger)
    assert ledger.outcome(request.id) is None


def test_after_redis_lost_its_memory_workers_have_a_lease_period_to_show_themselves(ledger: Ledger) -> None:
    request, _ = submit(ledger, new())
    ledger.index.redis.flushall()
    reconciler = Reconciler(ledger)
    sent = len(ledger.queue.sent)  # type: ignore[attr-defined]
    reconciler.round()
    assert len(ledger.queue.sent) == sent  # type: ignore[attr-defined]
    time.sleep(1.1)
    reconciler.round()
    assert ledger.queue.sent[sent:] == [("read", request.id)]  # type: ignore[attr-defined]
    assert ledger.index.epoch()


def test_a_job_is_accepted_while_the_queue_is_away(ledger: Ledger) -> None:
    class Away:
        def read(self, job: str, priority: str) -> None:
            raise QueueAway

        def deliver(self, delivery: str) -> None: ...

        def expand(self, batch: str) -> None: ...

    request, queued = submit(replace(ledger, queue=Away()), new())
    assert not queued
    reconcile(ledger)
    assert ledger.queue.sent == [("read", request.id)]  # type: ignore[attr-defined]


def enqueued_long_ago(ledger: Ledger, job: str) -> None:
    ledger.index.redis.set(f"enqueued:{job}", f"{time.time() - 100:.3f} routine default")


def test_an_overtaken_job_is_enqueued_again(ledger: Ledger) -> None:
    lost, _ = submit(ledger, new())
    later, _ = submit(ledger, new())
    ledger.index.redis.rpush("routine", "a message")
    enqueued_long_ago(ledger, lost.id)
    reconcile(ledger)
    before = ledger.queue.sent.count(("read", lost.id))  # type: ignore[attr-defined]
    assert start(ledger, later.id, "token")
    reconcile(ledger)
    assert ledger.queue.sent.count(("read", lost.id)) == before + 1  # type: ignore[attr-defined]


def test_a_job_whose_message_is_in_no_queue_is_enqueued_again(ledger: Ledger) -> None:
    lost, _ = submit(ledger, new())
    reconcile(ledger)
    assert ledger.queue.sent == [("read", lost.id)]  # type: ignore[attr-defined]
    enqueued_long_ago(ledger, lost.id)
    reconcile(ledger)
    assert ledger.queue.sent == [("read", lost.id)] * 2  # type: ignore[attr-defined]


def test_an_old_job_expires(ledger: Ledger) -> None:
    hurried = replace(ledger, settings=ledger.settings.model_copy(update={"job_ttl": -1.0}))
    request, _ = submit(hurried, new())
    assert start(ledger, request.id, "token") is None
    outcome = ledger.outcome(request.id)
    assert outcome and outcome.state is JobState.EXPIRED


def test_erasing_stopped_anywhere_leaves_nothing_of_the_patient(ledger: Ledger) -> None:
    died = 0
    while True:
        request, _ = submit(ledger, new())
        finish(ledger, request.id, failure(ledger))

        def operation(mortal: Ledger, job: str = request.id) -> None:
            erase(mortal, job)

        operation.writes = died  # type: ignore[attr-defined]
        stopped = die_after_each_write(ledger, operation)
        if (
            stopped
            and not listed(ledger, keys.ERASE)
            and ledger.store.exists(keys.job_input(request.id, new().sha256))
        ):
            erase(ledger, request.id)  # it had not begun, and the client was told so
        reconcile(ledger)
        assert listed(ledger, keys.inputs(request.id)) == []
        assert listed(ledger, keys.ERASE) == []
        erased = ledger.outcome(request.id)
        assert erased and erased.kind == "erased" and erased.failure is None
        assert finish(ledger, request.id, failure(ledger)).kind == "erased"
        if not stopped:
            break
        died += 1
    assert died >= 5


@pytest.mark.parametrize(
    ("status", "ends"),
    [(200, "delivered"), (204, "delivered"), (410, "undelivered"), (500, "owed"), (None, "owed")],
)
def test_a_delivery_ends_as_the_endpoint_says(ledger: Ledger, status: int | None, ends: str) -> None:
    request, _ = submit(ledger, new(webhook_url=HOOK))
    finish(ledger, request.id, failure(ledger))
    owed = Delivery.id_of(request.id, HOOK, "job.failed")
    tried = deliver(ledger, owed, lambda _: Answer(status))
    assert tried and tried.status == ends
    assert ledger.store.exists(keys.outbox(owed)) is (ends == "owed")
    assert ledger.store.exists(keys.delivery(owed)) is (ends != "owed")
    assert deliver(ledger, owed, lambda _: pytest.fail("not due, or done")) is None


def test_a_delivery_stopped_anywhere_is_recorded_once(ledger: Ledger) -> None:
    sends = 0

    def send(_: Delivery) -> Answer:
        nonlocal sends
        sends += 1
        return Answer(200)

    for died in range(3):
        request, _ = submit(ledger, new(webhook_url=HOOK))
        finish(ledger, request.id, failure(ledger))
        owed = Delivery.id_of(request.id, HOOK, "job.failed")

        def operation(mortal: Ledger, owed: str = owed) -> None:
            deliver(mortal, owed, send)

        operation.writes = died  # type: ignore[attr-defined]
        die_after_each_write(ledger, operation)
        deliver(ledger, owed, send)
        assert ledger.store.exists(keys.delivery(owed))
        assert not ledger.store.exists(keys.outbox(owed))
    assert sends == 3


IMAGES = [f"\x89PNG\r\n\x1a\n{n}".encode("latin-1") for n in range(6)]
"""No images, but of a kind that is accepted: what a worker makes of them is its affair."""


def batch(ledger: Ledger, count: int = 2, **options: object) -> Request:
    digests = [hashlib.sha256(data).hexdigest() for data in IMAGES[:count]]
    rows = [Row(image=f"file:{digest}", name=f"row {n}") for n, digest in enumerate(digests)]
    files = zip(digests, IMAGES[:count], strict=True)
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
        request = ledger.request(entry.key.split("/")[1])
        if request and request.status == "abandoned":
            assert not listed(ledger, keys.batch(request.id))


def test_a_batch_stopped_anywhere_ends_with_every_item(ledger: Ledger) -> None:
    request = batch(ledger, webhook_url=HOOK)

    def operation(mortal: Ledger) -> None:
        expand(mortal, request.id)

    while die_after_each_write(ledger, operation):
        ledger.index.redis.flushall()
    for row in range(2):
        run(ledger, item_id(request.id, row))
    assert progress(ledger, request).counts == {"failed": 2, "open": 0}
    operation.writes = 0  # type: ignore[attr-defined]
    while die_after_each_write(ledger, operation):
        pass
    reconcile(ledger)
    outcome = ledger.outcome(request.id)
    assert outcome and outcome.kind == "completed" and outcome.counts == {"failed": 2}
    assert listed(ledger, keys.OPEN) == []
    assert listed(ledger, keys.batch_inputs(request.id)) == []
    assert listed(ledger, keys.OUTBOX) == [keys.outbox(Delivery.id_of(request.id, HOOK, "batch.succeeded"))]


def test_cancelling_a_batch_cancels_its_items(ledger: Ledger) -> None:
    request = batch(ledger)
    expand(ledger, request.id)
    assert cancel(ledger, request.id).kind == "cancelled"
    reconcile(ledger)
    expand(ledger, request.id)
    assert progress(ledger, request).counts == {"cancelled": 2, "open": 0}


def test_only_a_window_of_a_batch_is_open_at_a_time(ledger: Ledger) -> None:
    narrow = replace(ledger, settings=ledger.settings.model_copy(update={"batch_window": 2}))
    request = batch(narrow, count=5)
    seen = []
    for _ in range(5):
        expand(narrow, request.id)
        waiting = [row for row in range(5) if ledger.request(item_id(request.id, row))]
        seen.append(len(waiting) - len(ended_items(ledger, request.id)))
        run(ledger, item_id(request.id, min(set(waiting) - set(ended_items(ledger, request.id)))))
    assert seen == [2, 2, 2, 2, 1]
    expand(narrow, request.id)
    outcome = ledger.outcome(request.id)
    assert outcome and outcome.counts == {"failed": 5}


def test_a_paused_batch_submits_nothing_until_it_is_resumed(ledger: Ledger) -> None:
    request = batch(ledger)
    pause(ledger, request.id)
    reconcile(ledger)
    assert not ledger.request(item_id(request.id, 0))
    resume(ledger, request.id)
    reconcile(ledger)
    assert ledger.request(item_id(request.id, 0))


def test_an_item_without_an_image_fails_alone(ledger: Ledger) -> None:
    ledger.store.put(keys.upload("default", "u1"), IMAGES[0])
    ledger.store.put(keys.imported("default", "a/b.png"), IMAGES[1])
    ledger.store.put(keys.imported("other", "c.png"), IMAGES[2])
    ledger.store.put(keys.imported("default", "text"), b"no image")
    mine, _ = submit(ledger, new(data=IMAGES[3]))
    theirs, _ = submit(ledger, new(data=IMAGES[3], tenant="other"))
    images = ["upload:u1", "import:a/b.png", "import:c.png", "import:text", f"job:{mine.id}", f"job:{theirs.id}"]
    request = submit_batch(ledger, NewBatch(), [Row(image=image) for image in images])
    expand(ledger, request.id)
    assert ended_items(ledger, request.id) == {2: "failed", 3: "failed", 5: "failed"}
    outcome = ledger.outcome(item_id(request.id, 3))
    assert outcome and outcome.failure and outcome.failure.code == "not-an-image"
    assert ledger.store.get(keys.job_input(item_id(request.id, 4), mine.input_sha256)) == IMAGES[3]
    assert listed(ledger, keys.UPLOADS) == []


def test_what_failed_can_be_tried_again_as_a_new_batch(ledger: Ledger) -> None:
    request = batch(ledger, count=3)
    expand(ledger, request.id)
    assert retry_failed(ledger, request, NewBatch()) is None
    run(ledger, item_id(request.id, 1))
    again = retry_failed(ledger, request, NewBatch(retry_of=request.id))
    assert again and (again.rows, again.retry_of) == (1, request.id)
    expand(ledger, again.id)
    item = ledger.request(item_id(again.id, 0))
    assert item and item.name == "row 1"
    assert ledger.input(item) == IMAGES[1]


def test_a_batchs_key_gives_the_same_batch_again(ledger: Ledger) -> None:
    first = batch(ledger, idempotency_key="k", fingerprint="f")
    assert batch(ledger, idempotency_key="k", fingerprint="f") == first
    with pytest.raises(Conflict):
        batch(ledger, idempotency_key="k", fingerprint="other")


def test_entries_have_the_stores_time(ledger: Ledger) -> None:
    submit(ledger, new())
    entry = next(ledger.store.list(keys.OPEN))
    assert isinstance(entry, Entry)


def test_a_tenants_flood_does_not_starve_another(ledger: Ledger) -> None:
    flood = [submit(ledger, new(tenant="flood"))[0].id for _ in range(5)]
    one = [submit(ledger, new(tenant="one"))[0].id for _ in range(2)]
    assert ledger.index.ahead(flood[4], "routine", "flood") == 6
    assert ledger.index.ahead(one[0], "routine", "one") == 0
    turns = [ledger.index.next_turn("routine") for _ in range(8)]
    assert turns == [flood[0], one[0], flood[1], one[1], *flood[2:], None]


def test_what_belongs_together_is_found_and_erased_though_redis_is_lost(ledger: Ledger) -> None:
    def operation(mortal: Ledger) -> None:
        submit(mortal, new(patient="p", study="s"))

    while die_after_each_write(ledger, operation):
        reconcile(ledger)
    ledger.index.redis.flushall()
    committed = [
        entry.key.split("/")[1] for entry in ledger.store.list("jobs/") if entry.key.endswith("request.json")
    ]
    assert erase_group(ledger, "default", "patient", "p") >= 1
    reconcile(ledger)
    for job in committed:
        request = ledger.request(job)
        assert request and request.status in ("erased", "abandoned")
    assert not listed(ledger, "groups/default/patient/")


def test_jobs_are_listed_again_after_redis_was_lost(ledger: Ledger) -> None:
    jobs = [submit(ledger, new())[0].id for _ in range(3)]
    finish(ledger, jobs[0], failure(ledger))
    ledger.index.redis.flushall()
    assert ledger.index.listed("default", None, 10) == []
    reconcile(ledger)
    assert [job for job, _ in ledger.index.listed("default", None, 10)] == jobs[::-1]
    assert ledger.index.history_is_listed()


def test_uploads_that_became_no_job_are_dropped(ledger: Ledger) -> None:
    ledger.store.put("uploads/default/x", b"x")
    reconcile(ledger)
    assert listed(ledger, "uploads/") == ["uploads/default/x"]
    hurried = replace(ledger, settings=ledger.settings.model_copy(update={"upload_ttl": -1.0}))
    reconcile(hurried)
    assert listed(ledger, "uploads/") == []


def test_of_an_erased_item_the_manifest_keeps_nothing(ledger: Ledger) -> None:
    for name in ("a", "b"):
        ledger.store.put(keys.imported("default", name), IMAGES[0])
    rows = [Row(image=f"import:{n}", name=f"row {n}", patient=f"patient {n}", indication="cough") for n in "ab"]
    request = submit_batch(ledger, NewBatch(), rows)
    expand(ledger, request.id)
    erase(ledger, item_id(request.id, 0))
    kept = b"".join(ledger.store.get(entry.key) for entry in ledger.store.list(keys.batch(request.id)))
    assert b"patient a" not in kept and b"row a" not in kept and b"patient b" in kept
    run(ledger, item_id(request.id, 1))
    expand(ledger, request.id)
    outcome = ledger.outcome(request.id)
    assert outcome and outcome.counts == {"cancelled": 1, "failed": 1}
    again = retry_failed(ledger, request, NewBatch())
    assert again and again.rows == 1


def test_an_entry_that_cannot_be_attended_keeps_no_other_waiting(ledger: Ledger) -> None:
    odd = submit_batch(ledger, NewBatch(), [Row(image="import:.parts/x")])
    broken, later = batch(ledger), batch(ledger)
    ledger.store.put(keys.page(broken.id, 0), b"no page")
    reconcile(ledger)
    assert ended_items(ledger, odd.id) == {0: "failed"}
    assert ledger.request(item_id(later.id, 0))


def test_a_count_that_was_forgotten_is_not_begun_anew(ledger: Ledger) -> None:
    ledger.index.batch_item_ended("b", "failed")
    assert ledger.index.batch_counts("b") is None
    ledger.index.keep_batch_counts("b", {"failed": 1})
    ledger.index.batch_item_ended("b", "failed")
    assert ledger.index.batch_counts("b") == {"cancelled": 0, "failed": 2}
    assert ledger.index.redis.ttl("batch:b") > 0
