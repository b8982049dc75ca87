"""How long images and reports are kept, and what an erasure leaves behind."""

import time
from dataclasses import replace

import pytest

from emx_shared.contracts.states import JobState
from emx_shared.ledger import Ledger, NewJob, Reconciler, deliver, erase, finish, object_keys, redeliver, submit
from emx_shared.ledger.jobs.delivery import EndpointAnswer
from emx_shared.ledger.records import Outcome

URL = "https://ris.example.org/hooks?token=secret"


def with_settings(ledger: Ledger, **settings: object) -> Ledger:
    return replace(ledger, settings=ledger.settings.model_copy(update=settings))


def submitted(ledger: Ledger, *, ended: bool, webhook_url: str | None = None) -> str:
    job = submit(ledger, NewJob(b"an image", "image/png", webhook_url=webhook_url))[0].id
    if ended:
        finish(ledger, job, Outcome(state=JobState.FAILED, finished_at=ledger.now()))
    return job


def has_image(ledger: Ledger, job: str) -> bool:
    return bool(list(ledger.store.list(object_keys.inputs(job))))


def round_of(ledger: Ledger) -> None:
    ledger.redis.epoch.begin()
    Reconciler(ledger).round()


def test_nothing_goes_by_default(ledger: Ledger) -> None:
    job = submitted(ledger, ended=True)
    time.sleep(0.05)
    round_of(ledger)
    assert has_image(ledger, job) and ledger.outcome(job)


def test_images_go_when_they_are_old_and_their_jobs_have_ended(ledger: Ledger) -> None:
    old, waiting, after = (submitted(ledger, ended=ended) for ended in (True, False, True))
    time.sleep(0.1)
    strict = with_settings(ledger, retention_inputs=0.05)
    young = submitted(strict, ended=True)
    round_of(strict)
    assert [has_image(ledger, job) for job in (old, waiting, after, young)] == [False, True, True, True]
    finish(ledger, waiting, Outcome(state=JobState.CANCELLED, finished_at=ledger.now()))
    time.sleep(0.1)
    round_of(strict)
    assert not any(has_image(ledger, job) for job in (old, waiting, after, young))
    outcome = ledger.outcome(old)
    assert outcome and outcome.state == JobState.FAILED, "the outcome stays"


def test_reports_go_when_they_are_old(ledger: Ledger) -> None:
    old, waiting = submitted(ledger, ended=True), submitted(ledger, ended=False)
    time.sleep(0.1)
    round_of(with_settings(ledger, retention_reports=0.05))
    outcome = ledger.outcome(old)
    assert outcome and outcome.erased and ledger.job(old) is None
    assert ledger.job(waiting) and ledger.outcome(waiting) is None


def test_images_need_not_be_kept_at_all(ledger: Ledger) -> None:
    strict = with_settings(ledger, keep_input=False)
    waiting = submitted(strict, ended=False)
    assert has_image(ledger, waiting)
    finish(strict, waiting, Outcome(state=JobState.FAILED, finished_at=ledger.now()))
    assert not has_image(ledger, waiting)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_erasure_leaves_no_address_of_a_webhook(ledger: Ledger, when: str) -> None:
    job = submitted(ledger, ended=True, webhook_url=URL)
    (entry,) = ledger.store.list(object_keys.OUTBOX)
    first = entry.key.removeprefix(object_keys.OUTBOX)
    if when == "before":  # the deliveries end before the erasure, one of them repeated twice
        ended = deliver(ledger, first, lambda _: EndpointAnswer(410))
        assert ended
        for _ in range(2):
            again = redeliver(ledger, ended)
            deliver(ledger, again.id, lambda _: EndpointAnswer(204))
        assert len(list(ledger.store.list(object_keys.DELIVERIES))) == 3
        erase(ledger, job)
    else:
        erase(ledger, job)
        deliver(ledger, first, lambda _: EndpointAnswer(204))
    for entry in list(ledger.store.list("")):
        assert b"secret" not in ledger.store.get(entry.key), entry.key
