"""Every operation is stopped after each of its writes, and brought to its end by somebody else."""

import copy
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from emx_shared.contracts.states import JobState
from emx_shared.ledger import (
    EndpointAnswer,
    IdempotencyConflict,
    Ledger,
    NewJob,
    Reconciler,
    cancel,
    claim_job,
    deliver,
    erase,
    erase_group,
    finish,
    hand_back,
    object_keys,
    opening,
    redeliver,
    sliced_listing,
    start,
    submit,
)
from emx_shared.ledger.reconciler import POISON_DEATHS
from emx_shared.ledger.records import Delivery, Tombstone
from emx_shared.messaging import QueueUnavailable
from emx_shared.store import Entry, StoreError, UnsuitableStore
from support.mortality import die_after_each_write, failure, listed, new_job, reconcile, run

HOOK = "https://example.org/hook"


def test_a_submission_stopped_anywhere_is_either_whole_or_nothing(ledger: Ledger) -> None:
    def operation(mortal: Ledger) -> None:
        submit(mortal, new_job(webhook_url=HOOK))

    died = 0
    while die_after_each_write(ledger, operation):
        died += 1
        reconcile(ledger)
        jobs = [key.removeprefix(object_keys.OPEN) for key in listed(ledger, object_keys.OPEN)]
        for job in jobs:
            assert ("read", job) in ledger.queue.sent  # type: ignore[attr-defined]
            run(ledger, job)
        assert listed(ledger, object_keys.OPEN) == []
    assert died == 3
    committed = [key for key in listed(ledger, "jobs/") if "input-" in key]
    assert len(committed) == 2  # the one that died after its commit point, and the one that got through


@pytest.mark.parametrize("end", ["finish", "cancel"])
def test_an_ending_stopped_anywhere_ends_once_with_its_webhook(ledger: Ledger, end: str) -> None:
    died = 0
    while True:
        request, _ = submit(ledger, new_job(webhook_url=HOOK))

        def operation(mortal: Ledger, job: str = request.id) -> None:
            finish(mortal, job, failure(mortal)) if end == "finish" else cancel(mortal, job)

        operation.writes = died  # type: ignore[attr-defined]
        stopped = die_after_each_write(ledger, operation)
        first = ledger.outcome(request.id)
        ledger.redis.connection.client.flushall()  # and Redis loses its memory as well
        reconcile(ledger)
        assert ledger.outcome(request.id) == first
        state = "failed" if end == "finish" else "cancelled"
        assert listed(ledger, object_keys.OPEN) == []
        assert f"outbox/{Delivery.id_of(request.id, HOOK, f'job.{state}')}" in listed(ledger, object_keys.OUTBOX)
        if not stopped:
            break
        died += 1
    assert died == 3


def test_the_first_outcome_stays(ledger: Ledger) -> None:
    request, _ = submit(ledger, new_job())
    assert cancel(ledger, request.id).state == "cancelled"
    assert finish(ledger, request.id, failure(ledger)).state == "cancelled"
    other, _ = submit(ledger, new_job())
    finish(ledger, other.id, failure(ledger))
    assert cancel(ledger, other.id).state == "failed"


def test_a_key_gives_the_same_job_again(ledger: Ledger) -> None:
    first, _ = submit(ledger, new_job(idempotency_key="k"))
    again, _ = submit(ledger, new_job(idempotency_key="k"))
    assert again == first
    assert submit(ledger, new_job(idempotency_key="k", tenant="other"))[0].id != first.id
    with pytest.raises(IdempotencyConflict):
        submit(ledger, NewJob(b"another image", "image/png", idempotency_key="k"))


def test_an_abandoned_key_can_be_used_again(ledger: Ledger) -> None:
    def operation(mortal: Ledger) -> None:
        submit(mortal, new_job(idempotency_key="k"))

    assert die_after_each_write(ledger, operation)
    time.sleep(0.05)
    reconcile(ledger)
    assert listed(ledger, object_keys.OPEN) == []
    request, _ = submit(ledger, new_job(idempotency_key="k"))
    assert ledger.job(request.id) == request


def test_only_one_worker_starts_a_job(ledger: Ledger) -> None:
    request, _ = submit(ledger, new_job())
    assert start(ledger, request.id, "a")
    assert start(ledger, request.id, "b") is None
    finish(ledger, request.id, failure(ledger))
    ledger.redis.leases.release(request.id, "a")
    assert start(ledger, request.id, "c") is None


def test_a_job_that_kills_its_workers_is_poison(ledger: Ledger) -> None:
    request, _ = submit(ledger, new_job())
    for death in range(POISON_DEATHS):
        started = start(ledger, request.id, f"token {death}")
        assert started
        assert started.alone is (death > 0)
        ledger.redis.connection.client.delete(f"lease:{request.id}")  # it lapsed
        reconcile(ledger)
    outcome = ledger.outcome(request.id)
    assert outcome and outcome.failure and outcome.failure.code == "poison"
    assert outcome.attempts == POISON_DEATHS


def test_handing_back_and_losing_redis_are_no_deaths(ledger: Ledger) -> None:
    request, _ = submit(ledger, new_job())
    for number in range(POISON_DEATHS + 1):
        started = start(ledger, request.id, f"token {number}")
        assert started and not started.alone
        if number % 2:
            hand_back(ledger, started)
        else:
            ledger.redis.connection.client.flushall()
            reconcile(ledger)
    assert ledger.outcome(request.id) is None


def test_after_redis_lost_its_memory_workers_have_a_lease_period_to_show_themselves(ledger: Ledger) -> None:
    request, _ = submit(ledger, new_job())
    ledger.redis.connection.client.flushall()
    reconciler = Reconciler(ledger)
    sent = len(ledger.queue.sent)  # type: ignore[attr-defined]
    reconciler.round()
    assert len(ledger.queue.sent) == sent  # type: ignore[attr-defined]
    time.sleep(1.1)
    reconciler.round()
    assert ledger.queue.sent[sent:] == [("read", request.id)]  # type: ignore[attr-defined]
    assert ledger.redis.epoch.current()


def test_a_job_is_accepted_while_the_queue_is_away(ledger: Ledger) -> None:
    class Away:
        def enqueue_read(self, fallback_job: str, priority: str) -> None:
            raise QueueUnavailable

        def deliver(self, delivery: str) -> None: ...

        def expand(self, batch: str) -> None: ...

    request, queued = submit(replace(ledger, queue=Away()), new_job())
    assert not queued
    reconcile(ledger)
    assert ledger.queue.sent == [("read", request.id)]  # type: ignore[attr-defined]


def enqueued_long_ago(ledger: Ledger, job: str) -> None:
    ledger.redis.connection.client.set(f"enqueued:{job}", f"{time.time() - 100:.3f} routine default")


def reads(ledger: Ledger) -> int:
    """Return how many messages were sent to workers."""
    return [what for what, _ in ledger.queue.sent].count("read")  # type: ignore[attr-defined]


def take_message(ledger: Ledger) -> None:
    assert ledger.redis.connection.client.rpop("routine")


def test_a_job_whose_turn_was_lost_is_enqueued_again_however_busy_another_tenant_keeps_the_queue(
    ledger: Ledger,
) -> None:
    lost, _ = submit(ledger, new_job())
    for _ in range(3):
        submit(ledger, new_job(tenant="busy"))
    enqueued_long_ago(ledger, lost.id)
    reconcile(ledger)
    assert reads(ledger) == 4
    take_message(ledger)
    assert ledger.redis.turns.take("routine") == lost.id  # by a worker that dies before it has the lease
    reconcile(ledger)
    assert reads(ledger) == 5
    assert ledger.redis.turns.ahead(lost.id, "routine", "default") == 0
    reconcile(ledger)
    assert reads(ledger) == 5


def test_a_message_that_was_lost_is_sent_again_and_its_job_keeps_its_place(ledger: Ledger) -> None:
    jobs = [submit(ledger, new_job())[0].id for _ in range(2)]
    reconcile(ledger)
    assert reads(ledger) == 2
    take_message(ledger)  # by a worker that dies before it takes a turn
    reconcile(ledger)
    assert reads(ledger) == 3
    reconcile(ledger)
    assert reads(ledger) == 3
    assert [ledger.redis.turns.take("routine") for _ in range(2)] == jobs


def test_a_message_that_was_just_taken_isnt_sent_again(ledger: Ledger) -> None:
    ledger.redis.epoch.begin()
    reconciler = Reconciler(ledger)
    for _ in range(5):
        submit(ledger, new_job())
        take_message(ledger)
        reconciler.round()  # while the worker takes the turn
        assert ledger.redis.turns.take("routine")
        reconciler.round()
    assert reads(ledger) == 5


def test_an_old_job_expires(ledger: Ledger) -> None:
    hurried = replace(ledger, settings=ledger.settings.model_copy(update={"job_ttl": -1.0}))
    request, _ = submit(hurried, new_job())
    assert start(ledger, request.id, "token") is None
    outcome = ledger.outcome(request.id)
    assert outcome and outcome.state is JobState.EXPIRED


def test_erasing_stopped_anywhere_leaves_nothing_of_the_patient(ledger: Ledger) -> None:
    died = 0
    while True:
        request, _ = submit(ledger, new_job())
        finish(ledger, request.id, failure(ledger))

        def operation(mortal: Ledger, job: str = request.id) -> None:
            erase(mortal, job)

        operation.writes = died  # type: ignore[attr-defined]
        stopped = die_after_each_write(ledger, operation)
        if (
            stopped
            and not listed(ledger, object_keys.ERASE)
            and ledger.store.exists(object_keys.job_input(request.id, new_job().sha256))
        ):
            erase(ledger, request.id)  # it had not begun, and the client was told so
        reconcile(ledger)
        assert listed(ledger, object_keys.inputs(request.id)) == []
        assert listed(ledger, object_keys.ERASE) == []
        erased = ledger.outcome(request.id)
        assert erased and erased.erased and erased.failure is None
        assert finish(ledger, request.id, failure(ledger)).erased
        if not stopped:
            break
        died += 1
    assert died >= 5


@pytest.mark.parametrize(
    ("status", "ends"),
    [(200, "delivered"), (204, "delivered"), (410, "undelivered"), (500, "owed"), (None, "owed")],
)
def test_a_delivery_ends_as_the_endpoint_says(ledger: Ledger, status: int | None, ends: str) -> None:
    request, _ = submit(ledger, new_job(webhook_url=HOOK))
    finish(ledger, request.id, failure(ledger))
    owed = Delivery.id_of(request.id, HOOK, "job.failed")
    tried = deliver(ledger, owed, lambda _: EndpointAnswer(status))
    assert tried and tried.status == ends
    assert ledger.store.exists(object_keys.outbox(owed)) is (ends == "owed")
    assert ledger.store.exists(object_keys.delivery(owed)) is (ends != "owed")
    assert deliver(ledger, owed, lambda _: pytest.fail("not due, or done")) is None


def test_a_delivery_stopped_anywhere_is_recorded_once(ledger: Ledger) -> None:
    sends = 0

    def send(_: Delivery) -> EndpointAnswer:
        nonlocal sends
        sends += 1
        return EndpointAnswer(200)

    for died in range(3):
        request, _ = submit(ledger, new_job(webhook_url=HOOK))
        finish(ledger, request.id, failure(ledger))
        owed = Delivery.id_of(request.id, HOOK, "job.failed")

        def operation(mortal: Ledger, owed: str = owed) -> None:
            deliver(mortal, owed, send)

        operation.writes = died  # type: ignore[attr-defined]
        die_after_each_write(ledger, operation)
        deliver(ledger, owed, send)
        assert ledger.store.exists(object_keys.delivery(owed))
        assert not ledger.store.exists(object_keys.outbox(owed))
    assert sends == 3


def test_entries_have_the_stores_time(ledger: Ledger) -> None:
    submit(ledger, new_job())
    entry = next(ledger.store.list(object_keys.OPEN))
    assert isinstance(entry, Entry)


def test_a_tenants_flood_does_not_starve_another(ledger: Ledger) -> None:
    flood = [submit(ledger, new_job(tenant="flood"))[0].id for _ in range(5)]
    one = [submit(ledger, new_job(tenant="one"))[0].id for _ in range(2)]
    assert ledger.redis.turns.ahead(flood[4], "routine", "flood") == 6
    assert ledger.redis.turns.ahead(one[0], "routine", "one") == 0
    turns = [ledger.redis.turns.take("routine") for _ in range(8)]
    assert turns == [flood[0], one[0], flood[1], one[1], *flood[2:], None]


def test_what_belongs_together_is_found_and_erased_though_redis_is_lost(ledger: Ledger) -> None:
    def operation(mortal: Ledger) -> None:
        submit(mortal, new_job(patient="p", study="s"))

    while die_after_each_write(ledger, operation):
        reconcile(ledger)
    ledger.redis.connection.client.flushall()
    committed = [
        entry.key.split("/")[1] for entry in ledger.store.list("jobs/") if entry.key.endswith("request.json")
    ]
    assert erase_group(ledger, "default", "patient", "p") >= 1
    reconcile(ledger)
    for job in committed:
        request = ledger.record(job)
        assert isinstance(request, Tombstone)
    assert not listed(ledger, "groups/default/patient/")


def test_of_two_patients_under_one_key_each_is_erased_alone(ledger: Ledger) -> None:
    """Of two submissions at once, the one that loses leaves nothing by which its patient finds the other's."""
    mine, theirs = (new_job(idempotency_key="k", patient=patient) for patient in ("mine", "theirs"))
    claims = [claim_job(ledger, new) for new in (mine, theirs)]
    job, _ = submit(ledger, mine, claims[0])
    with pytest.raises(IdempotencyConflict):
        submit(ledger, theirs, claims[1])
    assert listed(ledger, "groups/") == list(object_keys.groups(job))
    (stray,) = object_keys.groups(job.model_copy(update={"patient": "theirs"}))
    ledger.store.put(stray, b"")  # as its process may have died before
    assert erase_group(ledger, "default", "patient", "theirs") == 0
    assert ledger.job(job.id) and not ledger.store.exists(stray)
    assert erase_group(ledger, "default", "patient", "mine") == 1


def test_jobs_are_listed_again_after_redis_was_lost(ledger: Ledger) -> None:
    jobs = [submit(ledger, new_job())[0].id for _ in range(3)]
    finish(ledger, jobs[0], failure(ledger))
    ledger.redis.connection.client.flushall()
    assert ledger.redis.listings.jobs("default", None, 10) == []
    reconcile(ledger)
    assert [job for job, _ in ledger.redis.listings.jobs("default", None, 10)] == jobs[::-1]
    assert ledger.redis.listings.is_complete()


def test_uploads_that_became_no_job_are_dropped(ledger: Ledger) -> None:
    ledger.store.put("uploads/default/x", b"x")
    reconcile(ledger)
    assert listed(ledger, "uploads/") == ["uploads/default/x"]
    hurried = replace(ledger, settings=ledger.settings.model_copy(update={"upload_ttl": -1.0}))
    reconcile(hurried)
    assert listed(ledger, "uploads/") == []


@pytest.mark.parametrize("failing", ["the list", "an entry"])
def test_a_list_is_complete_only_once_everything_is_in_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Whatever goes wrong while it is made again."""
    monkeypatch.setattr(sliced_listing, "SLICE", 4)
    jobs = {submit(ledger, new_job())[0].id for _ in range(6)}
    ledger.redis.connection.client.flushall()
    ledger.redis.epoch.begin()
    reconciler, list_objects, failures = Reconciler(ledger), ledger.store.list, [1]
    list_entry = reconciler._list

    def fail_once() -> None:
        failures[0] -= 1
        if failures[0] == 0:
            raise StoreError("away")

    def cut_list(prefix: str) -> Iterator[Entry]:
        for number, entry in enumerate(list_objects(prefix)):
            if prefix == object_keys.JOBS and number == 5:
                fail_once()
            yield entry

    def broken_entry(entry: Entry) -> None:
        if object_keys.id_of_record(entry.key):
            fail_once()
        list_entry(entry)

    if failing == "the list":
        monkeypatch.setattr(ledger.store, "list", cut_list)
    else:
        monkeypatch.setattr(reconciler, "_list", broken_entry)
    for _ in range(12):
        with suppress(StoreError):
            reconciler.round()
        if ledger.redis.listings.is_complete():
            break
    assert failures[0] <= 0 and ledger.redis.listings.is_complete()
    assert {id for id, _ in ledger.redis.listings.jobs("default", None, 100)} == jobs


def test_a_webhook_is_sent_once_though_the_store_cant_note_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does Redis take anything when it is sent."""
    request, _ = submit(ledger, new_job(webhook_url=HOOK))
    finish(ledger, request.id, failure(ledger))
    owed, sent = Delivery.id_of(request.id, HOOK, "job.failed"), list[str]()

    def send(due: Delivery) -> EndpointAnswer:
        sent.append(due.id)
        if len(sent) == 1:
            redis.setattr(ledger.redis.connection, "attempt", lambda _, otherwise: otherwise)
        return EndpointAnswer(500 if len(sent) == 1 else 200)

    def read_only(key: str, data: bytes) -> bool:
        raise StoreError("The store's disk failed: Read-only file system")

    with monkeypatch.context() as disk, monkeypatch.context() as redis:
        for operation in ("put", "put_if_absent"):
            disk.setattr(type(ledger.store), operation, lambda _, key, data: read_only(key, data))
        for number in range(20):
            with pytest.raises(StoreError):
                deliver(ledger, owed, send)
            if number == 10:
                redis.undo()
    assert sent == [owed]
    noted = deliver(ledger, owed, send)
    assert noted and (noted.tries, noted.status, sent) == (1, "owed", [owed])
    assert ledger.delivery(owed) == noted
    assert ledger.redis.due_deliveries.claim(noted.next_at, 9, 1) == [owed]


def test_webhooks_that_redis_forgot_are_named_again_once_they_are_due(ledger: Ledger) -> None:
    request, _ = submit(ledger, new_job(webhook_url=HOOK))
    finish(ledger, request.id, failure(ledger))
    owed = Delivery.id_of(request.id, HOOK, "job.failed")
    tried = deliver(ledger, owed, lambda _: EndpointAnswer(500))
    ledger.redis.connection.client.flushall()
    before = ledger.queue.sent.count(("deliver", owed))  # type: ignore[attr-defined]
    reconcile(ledger)
    assert ledger.queue.sent.count(("deliver", owed)) == before  # type: ignore[attr-defined]
    assert tried and ledger.redis.due_deliveries.claim(tried.next_at, 9, 1) == [owed]


def test_nothing_expires_while_two_clocks_disagree(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Though a machine's clock that is set while it runs changes nothing at once."""
    request, _ = submit(ledger, new_job(expires_in=3600.0))
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 25 * 3600)
    assert abs(ledger.now().timestamp() - clock()) < 5
    reconcile(ledger)
    assert ledger.outcome(request.id) is None
    monkeypatch.undo()
    ahead = replace(ledger, store=copy.copy(ledger.store))
    monkeypatch.setattr(ahead.store, "_clock", None)
    monkeypatch.setattr(ahead.store, "_ask_clock", lambda: clock() + 25 * 3600)
    assert start(ahead, request.id, "token")
    assert ledger.outcome(request.id) is None
    assert "This machine's clock is 90000 s behind the store's." in caplog.text
    ledger.store.put(object_keys.FORMAT, b"2")
    with pytest.raises(UnsuitableStore, match="by NTP"):
        opening._check_when_available(ahead.store, wait=0)


def test_a_full_sweep_finds_what_ended_or_expired_while_redis_says_that_it_waits(ledger: Ledger) -> None:
    jobs = [submit(ledger, new_job(expires_in=expires))[0].id for expires in (0.2, 3600.0)]
    ledger.redis.connection.client.rpush("routine", *jobs)
    ledger.store.put(object_keys.outcome(jobs[1]), failure(ledger).dump())  # whoever wrote it died
    time.sleep(0.3)
    reconcile(ledger)
    assert listed(ledger, object_keys.OPEN) == []
    assert [outcome.state for job in jobs if (outcome := ledger.outcome(job))] == ["expired", "failed"]


def test_damaged_jobs_are_listed_again_as_well(ledger: Ledger) -> None:
    """So that a list says which of its jobs can't be shown."""
    jobs = [submit(ledger, new_job())[0].id for _ in range(3)]
    finish(ledger, jobs[0], failure(ledger))
    ledger.store.put(object_keys.outcome(jobs[0]), b'{"format": "2.0"}')
    record = ledger.store.get(object_keys.record(jobs[1]))
    ledger.store.put(object_keys.record(jobs[1]), record.replace(b'"routine"', b'"whenever"'))
    ledger.redis.connection.client.flushall()
    ledger.redis.epoch.begin()
    Reconciler(ledger).round()
    assert [job for job, _ in ledger.redis.listings.jobs("default", None, 10)] == jobs[::-1]
    assert ledger.redis.listings.is_complete()


def test_a_job_that_has_ended_isnt_abandoned_though_its_record_was_cut(ledger: Ledger) -> None:
    job = submit(ledger, new_job())[0].id
    ledger.store.put(object_keys.outcome(job), failure(ledger).dump())
    ledger.store.put(object_keys.record(job), b'{"kind": "job", "id"')
    time.sleep(0.05)
    reconcile(ledger)
    assert ledger.outcome(job) and ledger.store.exists(object_keys.job_input(job, new_job().sha256))


def test_no_address_stays_of_deliveries_behind_a_damaged_one(ledger: Ledger) -> None:
    job = submit(ledger, new_job(webhook_url=HOOK))[0].id
    finish(ledger, job, failure(ledger))
    first = deliver(ledger, Delivery.id_of(job, HOOK, "job.failed"), lambda _: EndpointAnswer(200))
    assert first
    for _ in range(2):
        deliver(ledger, redeliver(ledger, first).id, lambda _: EndpointAnswer(200))
    damaged = f'{{"id": "{first.id}", "url": "{HOOK}"}}'
    ledger.store.put(object_keys.delivery(first.id), damaged.encode())
    erase(ledger, job)
    assert not [key for key in listed(ledger, "") if HOOK.encode() in ledger.store.get(key)]


@pytest.mark.parametrize("lost_at", [1, 2, 3])
def test_a_list_is_complete_only_if_redis_kept_its_memory_while_it_was_made(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, lost_at: int
) -> None:
    """Though it was made, or nearly so, when Redis was lost once more, and another courier makes it again."""
    monkeypatch.setattr(sliced_listing, "SLICE", 4)
    jobs = {submit(ledger, new_job())[0].id for _ in range(6)}
    couriers, calls = [Reconciler(ledger), Reconciler(ledger)], 0

    def lose_memory() -> None:
        ledger.redis.connection.client.flushall()
        ledger.redis.epoch.begin()

    def attempt_all(entries: list[Entry], advance: object) -> list[object]:
        nonlocal calls
        found = listed_before(entries, advance)  # type: ignore[arg-type]
        if advance == couriers[0]._list:
            calls += 1
            if calls == lost_at:
                lose_memory()
                for slice_of_other in couriers[1]._history.slices(-1):
                    couriers[1]._attempt_all(slice_of_other, couriers[1]._list)
        return found

    lose_memory()
    listed_before = couriers[0]._attempt_all
    monkeypatch.setattr(couriers[0], "_attempt_all", attempt_all)
    for _ in range(4):
        for courier in couriers:
            courier.round()
            found = {job for job, _ in ledger.redis.listings.jobs("default", None, 10)}
            assert found == jobs or not ledger.redis.listings.is_complete()
    assert calls >= lost_at and ledger.redis.listings.is_complete()
