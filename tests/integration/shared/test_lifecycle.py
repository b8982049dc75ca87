"""Whatever happens to jobs, whoever dies at whichever write: first outcomes stay, and in the end all is done."""

import hashlib
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from emx_shared.contracts.states import JobState
from emx_shared.ledger import (
    BeingErased,
    EndpointAnswer,
    IdempotencyConflict,
    Ledger,
    NewBatch,
    NewJob,
    Reconciler,
    Started,
    SubmissionAbandoned,
    SubmissionErased,
    add_feedback,
    cancel,
    deliver,
    erase,
    erase_batch,
    erase_group,
    finish,
    object_keys,
    pause_batch,
    resume_batch,
    start,
    submit,
    submit_batch,
)
from emx_shared.ledger.batches.items import ended_items
from emx_shared.ledger.batches.manifest_pages import item_id
from emx_shared.ledger.records import BatchRecord, Delivery, Failure, FeedbackVersion, Outcome, Row, Tombstone
from emx_shared.redis_state import RedisState
from emx_shared.settings import Settings
from support.mortality import Killed, MortalStore, as_courier
from support.object_stores import NewStore
from support.servers import RememberingQueue

EXAMPLES = int(os.environ.get("EMX_TEST_EXAMPLES", "60"))
"""Of whole lives; more, by hand, take longer."""

SECRET = b"nobody may read this"
PATIENT = "patient-4711"
PNG = b"\x89PNG\r\n\x1a\n"


class Lifecycle(RuleBasedStateMachine):
    """Clients, workers, couriers and operators, each of whom may die after any write."""

    ledger: Ledger

    @initialize()
    def begin(self) -> None:
        self.ledger.redis.connection.client.flushall()
        self.in_hand: dict[str, Started] = {}
        self.first: dict[str, Outcome] = {}
        self.sent: list[tuple[str, str, str]] = []
        self.reconciler = Reconciler(self.ledger)

    def do(self, dies_after: int | None, operation: Callable[[Ledger], object]) -> object:
        """None when the process died of it."""
        if dies_after is None:
            return operation(self.ledger)
        try:
            return operation(replace(self.ledger, store=MortalStore(self.ledger.store, dies_after)))
        except Killed:
            for held in self.ledger.redis.connection.client.scan_iter("lease:*:*"):  # of a page, of a batch
                self.ledger.redis.connection.client.delete(held)
            return None

    def jobs(self, kind: str = "job") -> list[str]:
        found = {entry.key.split("/")[1] for entry in self.ledger.store.list(object_keys.JOBS)}
        return sorted(id for id in found if self.kind_of(id) == kind)

    def kind_of(self, id: str) -> str:
        record = self.ledger.record(id)
        if record is None:
            return "job"
        return record.of if isinstance(record, Tombstone) else record.kind

    def batches(self) -> list[BatchRecord]:
        """Those that weren't erased."""
        found = [self.ledger.batch(id) for id in self.jobs("batch")]
        return [batch for batch in found if batch]

    deaths = st.none() | st.integers(1, 9)
    places = st.integers(0, 1000)

    def one(self, place: int) -> str | None:
        known = self.jobs()
        return known[place % len(known)] if known else None

    @rule(
        dies_after=deaths,
        key=st.sampled_from([None, "a", "b"]),
        hook=st.booleans(),
        priority=st.sampled_from(["stat", "routine"]),
    )
    def a_client_submits(self, dies_after: int | None, key: str | None, hook: bool, priority: str) -> None:
        new = NewJob(
            SECRET,
            "image/png",
            priority=priority,  # type: ignore[arg-type]
            patient=PATIENT,
            idempotency_key=key,
            webhook_url="https://example.org/hook" if hook else None,
        )
        with suppress(IdempotencyConflict, SubmissionAbandoned, SubmissionErased):
            self.do(dies_after, lambda ledger: submit(ledger, new))

    @rule(dies_after=deaths, place=places)
    def a_worker_begins(self, dies_after: int | None, place: int) -> None:
        if job := self.one(place):
            started = self.do(dies_after, lambda ledger: start(ledger, job, uuid.uuid4().hex))
            if isinstance(started, Started):
                assert job not in self.in_hand, "two workers have it"
                self.in_hand[job] = started
            elif job not in self.in_hand:
                self.lapse(job)  # of a worker that died while it began

    @rule(dies_after=deaths, place=places)
    def a_worker_ends(self, dies_after: int | None, place: int) -> None:
        if self.in_hand:
            job = sorted(self.in_hand)[place % len(self.in_hand)]
            started = self.in_hand.pop(job)
            failure = Failure(code="x", message="x")
            outcome = Outcome(state=JobState.FAILED, failure=failure, finished_at=self.ledger.store.now())
            self.do(dies_after, lambda ledger: finish(ledger, job, outcome))
            self.ledger.redis.leases.release(job, started.token)

    @rule(place=places)
    def a_worker_dies(self, place: int) -> None:
        if self.in_hand:
            job = sorted(self.in_hand)[place % len(self.in_hand)]
            del self.in_hand[job]
            self.lapse(job)

    def lapse(self, job: str) -> None:
        """A lease's end, without the wait."""
        self.ledger.redis.connection.client.delete(f"lease:{job}")

    @rule(dies_after=deaths, place=places)
    def a_reader_says_something(self, dies_after: int | None, place: int) -> None:
        id = self.one(place)
        job = self.ledger.job(id) if id else None
        if job is None or self.ledger.outcome(job.id) is None:
            return
        said, before = SECRET.decode(), self.ledger.feedback(job.id)
        versions = before.versions if before else ()
        new = FeedbackVersion(
            version=len(versions) + 1,
            reviewed_at=self.ledger.now(),
            reviewer="AB",
            verdict="agree",
            comment=said,
        )
        with suppress(BeingErased):
            self.do(dies_after, lambda ledger: add_feedback(ledger, job, new))
            after = self.ledger.feedback(job.id)
            assert (after.versions if after else ()) in (versions, (*versions, new))

    @rule(dies_after=deaths, place=places)
    def a_client_cancels(self, dies_after: int | None, place: int) -> None:
        job = self.one(place)
        if job and self.ledger.job(job):
            self.do(dies_after, lambda ledger: cancel(ledger, job))

    @rule(dies_after=deaths, place=places)
    def a_client_erases(self, dies_after: int | None, place: int) -> None:
        job = self.one(place)
        if job and self.ledger.job(job):
            self.do(dies_after, lambda ledger: erase(ledger, job))

    @rule(dies_after=deaths, key=st.sampled_from([None, "a"]), there=st.booleans(), hook=st.booleans())
    def a_client_submits_a_batch(self, dies_after: int | None, key: str | None, there: bool, hook: bool) -> None:
        images = [PNG + SECRET, PNG + b"another's"]
        files = [(hashlib.sha256(image).hexdigest(), image) for image in images]
        known = Row(image=f"file:{files[0][0]}", patient=PATIENT, metadata={"note": SECRET.decode()})
        other = Row(image=f"file:{files[1][0]}" if there else "import:nothing", patient="another")
        url = "https://example.org/hook" if hook else None
        new = NewBatch(idempotency_key=key, webhook_url=url, item_webhook_url=url)
        with suppress(IdempotencyConflict, SubmissionAbandoned, SubmissionErased):
            self.do(dies_after, lambda ledger: submit_batch(ledger, new, [known, other], files))

    @rule(dies_after=deaths, place=places)
    def a_courier_advances_a_batch(self, dies_after: int | None, place: int) -> None:
        if batches := self.jobs("batch"):
            self.do(dies_after, lambda ledger: as_courier(ledger, batches[place % len(batches)]))

    @rule(dies_after=deaths, place=places, change=st.sampled_from([pause_batch, resume_batch, erase_batch]))
    def a_client_changes_a_batch(self, dies_after: int | None, place: int, change: Any) -> None:
        if batches := self.batches():
            batch = batches[place % len(batches)]
            self.do(dies_after, lambda ledger: change(ledger, batch if change is erase_batch else batch.id))

    @rule(dies_after=deaths, place=places)
    def a_client_cancels_a_batch(self, dies_after: int | None, place: int) -> None:
        if batches := self.batches():
            self.do(dies_after, lambda ledger: cancel(ledger, batches[place % len(batches)].id))

    @rule(dies_after=deaths)
    def a_client_erases_the_patient(self, dies_after: int | None) -> None:
        self.do(dies_after, lambda ledger: erase_group(ledger, "default", "patient", PATIENT))
        if dies_after is None:
            for entry in list(self.ledger.store.list("")):
                room, id, *_ = entry.key.split("/")
                accepted = room != "batches" or self.ledger.record(id)  # else it is given up, and goes whole
                assert not accepted or SECRET not in self.ledger.store.get(entry.key), entry.key

    @rule(dies_after=deaths)
    def a_courier_reconciles(self, dies_after: int | None) -> None:
        self.do(dies_after, lambda ledger: Reconciler(ledger).round())

    @rule(dies_after=deaths, status=st.sampled_from([204, 500, 410]))
    def a_courier_delivers(self, dies_after: int | None, status: int) -> None:
        for entry in list(self.ledger.store.list(object_keys.OUTBOX)):
            delivery = entry.key.removeprefix(object_keys.OUTBOX)
            self.do(dies_after, lambda ledger, delivery=delivery: deliver(ledger, delivery, self._send(status)))

    def _send(self, status: int) -> Callable[[Delivery], EndpointAnswer]:
        def send(owed: Delivery) -> EndpointAnswer:
            self.sent.append((owed.job, owed.event, owed.id))
            return EndpointAnswer(status)

        return send

    @rule()
    def redis_is_lost(self) -> None:
        self.ledger.redis.connection.client.flushall()
        self.in_hand.clear()  # their workers renew the leases; here, they lose them

    @invariant()
    def the_first_outcome_stays(self) -> None:
        for job in self.jobs() + self.jobs("batch"):
            outcome = self.ledger.outcome(job)
            if outcome is None or outcome.erased:
                continue
            assert self.first.setdefault(job, outcome) == outcome

    def teardown(self) -> None:
        """In the end every job has its outcome, nothing is owed, and what was erased is gone."""
        for job in self.jobs():
            self.lapse(job)
        for batch in self.batches():
            resume_batch(self.ledger, batch.id)
        for _ in range(8):
            self.reconciler.round()
            for id in self.jobs("batch"):
                self.ledger.redis.connection.client.delete(
                    f"batch:{id}"
                )  # a minute goes by, and counts are made anew
                as_courier(self.ledger, id)
            for job in self.jobs():
                if started := start(self.ledger, job, "last"):
                    outcome = Outcome(state=JobState.CANCELLED, finished_at=self.ledger.store.now())
                    finish(self.ledger, started.job.id, outcome)
                    self.ledger.redis.leases.release(job, "last")
            for entry in list(self.ledger.store.list(object_keys.OUTBOX)):
                self._make_due(entry.key)
                deliver(self.ledger, entry.key.removeprefix(object_keys.OUTBOX), self._send(204))
        self.the_first_outcome_stays()
        for prefix in (object_keys.OPEN, object_keys.OUTBOX, object_keys.ERASE):
            assert list(self.ledger.store.list(prefix)) == []
        for job in self.jobs() + self.jobs("batch"):
            self._is_over(job)
        for batch in self.batches():
            self._has_no_open_item(batch)

    def _make_due(self, key: str) -> None:
        owed = Delivery.model_validate_json(self.ledger.store.get(key))
        self.ledger.store.put(key, owed.model_copy(update={"next_at": owed.created_at}).dump())

    def _is_over(self, job: str) -> None:
        request, outcome = self.ledger.record(job), self.ledger.outcome(job)
        abandoned = isinstance(request, Tombstone) and request.why == "abandoned"
        if request is None or abandoned:
            assert outcome is None
            assert not list(self.ledger.store.list(object_keys.inputs(job)))
            return
        assert outcome is not None
        events = {(event, id) for owner, event, id in self.sent if owner == job}
        assert len(events) <= 1, "told of two outcomes, or of one under two names"
        if isinstance(request, Tombstone):
            left = [
                self.ledger.store.get(entry.key) for entry in self.ledger.store.list(f"{object_keys.JOBS}{job}/")
            ]
            assert not any(SECRET in data or PATIENT.encode() in data for data in left)
            assert request.of == "job" or not list(self.ledger.store.list(object_keys.batch(job)))
        elif request.webhook_url:
            over = request.kind == "batch" and outcome.state == "succeeded"
            event = "batch.completed" if over else f"{request.kind}.{outcome.state}"
            assert events == {(event, Delivery.id_of(job, request.webhook_url, event))}

    def _has_no_open_item(self, batch: BatchRecord) -> None:
        outcome = self.ledger.outcome(batch.id)
        items = [self.ledger.outcome(item_id(batch.id, row)) for row in range(batch.rows)]
        assert outcome
        if outcome.state == "succeeded":
            assert all(items) and len(ended_items(self.ledger, batch.id)) == batch.rows


def run(redis_url: str, new_store: NewStore, examples: int) -> None:
    chosen = Settings(lease=0.0, abandon_after=-1.0, webhook_secret="whsec_" + "c2VjcmV0" * 4)

    class Bound(Lifecycle):
        def __init__(self) -> None:
            super().__init__()
            state = RedisState(redis_url, lease=600)
            self.ledger = Ledger(new_store(), state, RememberingQueue(state), chosen)

    suppressed = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    limits = settings(
        max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=suppressed
    )
    run_state_machine_as_test(Bound, settings=limits)


@pytest.mark.parametrize(
    ("new_store", "share"), [("directory", 1), ("seaweed", 12), ("moto", 12)], indirect=["new_store"]
)
def test_whatever_happens(redis_url: str, new_store: NewStore, share: int) -> None:
    """``share``: an S3 server takes longer, and sees fewer lives."""
    run(redis_url, new_store, max(EXAMPLES // share, 1))
