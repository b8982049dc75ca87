"""One bad object stops nothing that is done for others, and what belongs to it can still be erased."""

import hashlib
from dataclasses import replace

import pytest

from emx_shared.api_keys import KeyRing
from emx_shared.contracts.states import JobState
from emx_shared.ledger import (
    Ledger,
    NewBatch,
    NewJob,
    advance_batch,
    cancel,
    deliver,
    erase,
    erase_batch,
    erase_group,
    finish,
    is_permanent_failure,
    object_keys,
    pause_batch,
    resume_batch,
    retry_batch,
    start,
    submit,
    submit_batch,
)
from emx_shared.ledger.batches.items import awaited_uploads, ended_items
from emx_shared.ledger.batches.manifest_pages import item_id
from emx_shared.ledger.jobs.delivery import EndpointAnswer
from emx_shared.ledger.jobs.erasure import unread_rows
from emx_shared.ledger.jobs.retention import apply_retention
from emx_shared.ledger.records import BatchRecord, Delivery, Outcome, Row, Tombstone
from emx_shared.store import Store
from support.damage import DAMAGES, damage
from support.mortality import as_courier, failure, listed, new_job, reconcile, run

HOOK = "https://ris.example.org/hook?token=secret"
PNG = b"\x89PNG\r\n\x1a\n"
PATIENT = "a-patient"

EVERYWHERE = [*(("directory", damage) for damage in DAMAGES), ("seaweed", "cut"), ("moto", "invalid")]
how = pytest.mark.parametrize(("new_store", "how"), EVERYWHERE, indirect=["new_store"])


def batch_of(ledger: Ledger, *patients: str, **options: object) -> BatchRecord:
    """A batch with an image for each, which came with it."""
    files = [(hashlib.sha256(PNG + bytes([n])).hexdigest(), PNG + bytes([n])) for n in range(len(patients))]
    rows = [Row(image=f"file:{sha256}", patient=p) for p, (sha256, _) in zip(patients, files, strict=True)]
    return submit_batch(ledger, NewBatch(**options), rows, files)  # type: ignore[arg-type]


def left_of(ledger: Ledger, *secrets: bytes) -> list[str]:
    """Return the keys of the objects that still say one of these."""
    entries = list(ledger.store.list(""))
    return [e.key for e in entries if any(secret in ledger.store.get(e.key) for secret in secrets)]


@how
@pytest.mark.parametrize("key", [object_keys.record, object_keys.outcome, object_keys.open_marker])
def test_erasing_a_patient_reaches_the_rest_and_the_damaged_job(ledger: Ledger, how: str, key: object) -> None:
    jobs = [submit(ledger, new_job(PNG + bytes([n]), patient=PATIENT))[0].id for n in range(3)]
    other, _ = submit(ledger, new_job(b"another's", patient="another"))
    finish(ledger, jobs[1], failure(ledger))
    for job in (jobs[1], other.id):
        damage(ledger.store, key(job), how)  # type: ignore[operator]
    assert erase_group(ledger, "default", "patient", PATIENT) == 3
    assert ledger.store.exists(object_keys.job_input(other.id, other.input_sha256))
    reconcile(ledger)
    assert not left_of(ledger, PATIENT.encode(), PNG)
    for job in jobs:
        assert isinstance(ledger.record(job), Tombstone)
        outcome = ledger.outcome(job)
        assert outcome and outcome.erased


@how
def test_erasing_a_patient_is_not_stopped_by_anything_of_a_batch(ledger: Ledger, how: str) -> None:
    for damaged in ("record", "page", "cursor"):
        request = batch_of(ledger, "another", paused=True)
        key = {
            "record": object_keys.record(request.id),
            "page": object_keys.page(request.id, request.nonce, 0),
            "cursor": object_keys.cursor(request.id),
        }[damaged]
        damage(ledger.store, key, how)
    damage(ledger.store, object_keys.erasing("11111111-1111-4111-8111-111111111111"), how)
    whole = batch_of(ledger, PATIENT, "another", paused=True)
    job, _ = submit(ledger, new_job(patient=PATIENT))
    assert erase_group(ledger, "default", "patient", PATIENT) == 2
    assert isinstance(ledger.record(job.id), Tombstone)
    assert not left_of(ledger, PATIENT.encode())
    assert isinstance(ledger.batch(whole.id), BatchRecord)


def test_rows_of_a_damaged_batch_are_found_by_what_it_still_tells(ledger: Ledger) -> None:
    request = batch_of(ledger, PATIENT, "another", paused=True)
    for how in ("invalid", "garbage"):
        damage(ledger.store, object_keys.record(request.id), how)
        assert [rows for _, rows in unread_rows(ledger, "default", "patient", PATIENT)] == [[0]]
    assert erase_group(ledger, "default", "patient", PATIENT) == 1
    assert not left_of(ledger, PATIENT.encode(), PNG + b"\x00")


@how
@pytest.mark.parametrize("part", ["record", "outcome", "delivery"])
def test_a_damaged_job_can_be_erased(ledger: Ledger, how: str, part: str) -> None:
    job = submit(ledger, new_job(webhook_url=HOOK, patient=PATIENT))[0].id
    finish(ledger, job, failure(ledger))
    owed = Delivery.id_of(job, HOOK, "job.failed")
    deliver(ledger, owed, lambda _: EndpointAnswer(204))
    keys = {"record": object_keys.record(job), "outcome": object_keys.outcome(job)}
    damage(ledger.store, keys.get(part) or object_keys.delivery(owed), how)
    erase(ledger, job)
    reconcile(ledger)
    outcome = ledger.outcome(job)
    assert isinstance(ledger.record(job), Tombstone) and outcome and outcome.erased
    assert not left_of(ledger, new_job().data, PATIENT.encode())
    assert not listed(ledger, object_keys.OPEN) + listed(ledger, object_keys.ERASE)
    if part != "record" or how == "cut":  # what is left of it names the patient
        assert not listed(ledger, "groups/")


@how
@pytest.mark.parametrize("part", ["record", "outcome"])
def test_a_batch_ends_though_an_erased_item_was_damaged(ledger: Ledger, how: str, part: str) -> None:
    request = batch_of(ledger, "a", "b", item_webhook_url=HOOK)
    advance_batch(ledger, request.id)
    first, second = (item_id(request.id, row) for row in range(2))
    damage(ledger.store, getattr(object_keys, part)(first), how)
    run(ledger, second)
    erase_group(ledger, "default", "patient", "a")
    ledger.redis.connection.client.flushall()  # counts are a minute old at most
    advance_batch(ledger, request.id)
    outcome = ledger.outcome(request.id)
    assert outcome and outcome.counts == {"cancelled": 1, "failed": 1}


@how
@pytest.mark.parametrize("part", ["record", "outcome"])
def test_erasing_a_batch_reaches_every_item_and_the_damaged_one(ledger: Ledger, how: str, part: str) -> None:
    request = batch_of(ledger, "a", "b", "c")
    advance_batch(ledger, request.id)
    run(ledger, item_id(request.id, 2))
    damage(ledger.store, getattr(object_keys, part)(item_id(request.id, 0)), how)
    erase_batch(ledger, request)
    as_courier(ledger, request.id)
    reconcile(ledger)
    assert not left_of(ledger, PNG) and not listed(ledger, "batches/") and not listed(ledger, object_keys.OPEN)


@how
@pytest.mark.parametrize("part", ["record", "outcome"])
def test_a_damaged_batch_can_be_erased(ledger: Ledger, how: str, part: str) -> None:
    request = batch_of(ledger, "a", "b")
    advance_batch(ledger, request.id)
    damage(ledger.store, getattr(object_keys, part)(request.id), how)
    erase_batch(ledger, request)
    as_courier(ledger, request.id)
    reconcile(ledger)
    assert not left_of(ledger, PNG) and not listed(ledger, "batches/")
    assert not listed(ledger, object_keys.OPEN) + listed(ledger, object_keys.ERASE)
    assert isinstance(ledger.record(request.id), Tombstone)


@how
def test_cancelling_a_batch_cancels_the_items_beside_a_damaged_one(ledger: Ledger, how: str) -> None:
    request = batch_of(ledger, "a", "b", "c")
    advance_batch(ledger, request.id)
    damage(ledger.store, object_keys.record(item_id(request.id, 1)), how)
    cancel(ledger, request.id)
    advance_batch(ledger, request.id)
    assert {0, 2} <= set(ended_items(ledger, request.id))


@how
def test_a_batch_goes_on_past_a_damaged_item(ledger: Ledger, how: str) -> None:
    request = batch_of(ledger, "a", "b", "c")
    item = item_id(request.id, 0)
    damage(ledger.store, object_keys.record(item), how)
    advance_batch(ledger, request.id)
    assert all(ledger.job(item_id(request.id, row)) for row in (1, 2))
    assert bool(ledger.if_readable(ledger.job, item)) is (how != "invalid"), "one that was cut is written anew"


@how
def test_a_batch_goes_on_past_a_damaged_cursor(ledger: Ledger, how: str) -> None:
    request = batch_of(ledger, "a", "b", "c")
    advance_batch(ledger, request.id)
    damage(ledger.store, object_keys.cursor(request.id), how)
    advance_batch(ledger, request.id)
    assert ledger.store.get(object_keys.cursor(request.id)) == b"3"


@pytest.mark.parametrize("how", DAMAGES[:3])
def test_the_rows_of_a_page_that_was_cut_have_no_image_and_the_others_are_read(ledger: Ledger, how: str) -> None:
    rows = [Row(image="import:x") for _ in range(501)]
    ledger.store.put(object_keys.imported("default", "x"), PNG)
    request = submit_batch(ledger, NewBatch(paused=True), rows)
    damage(ledger.store, object_keys.page(request.id, request.nonce, 0), how)
    ledger.store.put(object_keys.cursor(request.id), b"498")
    resume_batch(ledger, request.id)
    for _ in range(2):  # a window at a time
        advance_batch(ledger, request.id)
    ended = [ledger.outcome(item_id(request.id, row)) for row in (498, 499)]
    assert all(outcome and outcome.failure and outcome.failure.code == "no-image" for outcome in ended)
    assert ledger.job(item_id(request.id, 500))


def test_a_page_of_a_newer_version_is_left_alone(ledger: Ledger) -> None:
    request, other = batch_of(ledger, "a"), batch_of(ledger, "b")
    newer = b'{"format": "2.9", "rows": "elsewhere"}'
    ledger.store.put(object_keys.page(request.id, request.nonce, 0), newer)
    reconcile(ledger)
    assert ledger.store.get(object_keys.page(request.id, request.nonce, 0)) == newer
    assert ledger.record(item_id(request.id, 0)) is None and ledger.job(item_id(other.id, 0))


@how
@pytest.mark.parametrize("part", ["record", "outcome"])
def test_what_failed_is_tried_again_beside_a_damaged_item(ledger: Ledger, how: str, part: str) -> None:
    request = batch_of(ledger, "a", "b")
    advance_batch(ledger, request.id)
    for row in range(2):
        run(ledger, item_id(request.id, row))
    damage(ledger.store, getattr(object_keys, part)(item_id(request.id, 0)), how)
    assert not any(is_permanent_failure(ledger, request, row) for row in range(2))
    again = retry_batch(ledger, request, {0, 1}, NewBatch())
    advance_batch(ledger, again.id)
    assert ledger.job(item_id(again.id, 1))
    outcome = ledger.outcome(item_id(again.id, 0))
    assert part == "outcome" or (outcome and outcome.failure and outcome.failure.code == "no-image")


@how
@pytest.mark.parametrize("part", ["record", "page", "cursor"])
def test_uploads_are_dropped_though_another_tenants_batch_is_damaged(ledger: Ledger, how: str, part: str) -> None:
    for tenant in ("default", "other"):
        ledger.store.put(object_keys.upload(tenant, "awaited"), PNG)
    request = submit_batch(ledger, NewBatch(tenant="other"), [Row(image="upload:awaited")])
    pause_batch(ledger, request.id)
    key = {
        "record": object_keys.record(request.id),
        "page": object_keys.page(request.id, request.nonce, 0),
        "cursor": object_keys.cursor(request.id),
    }[part]
    damage(ledger.store, key, how)
    reconcile(replace(ledger, settings=ledger.settings.model_copy(update={"upload_ttl": -1.0})))
    left = listed(ledger, object_keys.UPLOADS)
    assert object_keys.upload("default", "awaited") not in left
    if part == "cursor" or how == "invalid":
        assert left == [object_keys.upload("other", "awaited")] == list(awaited_uploads(ledger))


@how
@pytest.mark.parametrize("where", [object_keys.outbox, object_keys.delivery])
def test_a_damaged_delivery_keeps_no_batch_open(ledger: Ledger, how: str, where: object) -> None:
    request = batch_of(ledger, "a", item_webhook_url=HOOK)
    advance_batch(ledger, request.id)
    item = item_id(request.id, 0)
    damage(ledger.store, where(Delivery.id_of(item, HOOK, "job.failed")), how)  # type: ignore[operator]
    run(ledger, item)
    advance_batch(ledger, request.id)
    assert ledger.outcome(request.id) and not listed(ledger, object_keys.OPEN)


@how
def test_items_are_read_though_their_batchs_outcome_is_damaged(ledger: Ledger, how: str) -> None:
    request = batch_of(ledger, "a")
    advance_batch(ledger, request.id)
    damage(ledger.store, object_keys.outcome(request.id), how)
    assert start(ledger, item_id(request.id, 0), "token")


@how
def test_a_job_is_read_though_its_open_marker_is_damaged(ledger: Ledger, how: str) -> None:
    job = submit(ledger, new_job())[0].id
    damage(ledger.store, object_keys.open_marker(job), how)
    started = start(ledger, job, "token")
    assert started and started.attempts == 1


@how
@pytest.mark.parametrize("part", ["record", "outcome"])
def test_retention_goes_past_a_damaged_job(ledger: Ledger, how: str, part: str) -> None:
    strict = replace(
        ledger,
        settings=ledger.settings.model_copy(update={"retention_reports": 1e-6, "retention_inputs": 1e-6}),
    )
    jobs = [submit(ledger, NewJob(b"an image", "image/png"))[0].id for _ in range(3)]
    for job in jobs:
        finish(ledger, job, Outcome(state=JobState.FAILED, finished_at=ledger.now()))
    damage(ledger.store, getattr(object_keys, part)(jobs[0]), how)
    apply_retention(strict)
    assert all(isinstance(ledger.record(job), Tombstone) for job in jobs[1:])


@how
def test_a_damaged_key_opens_nothing_and_shuts_out_nobody_else(store: Store, how: str) -> None:
    ring = KeyRing(store)
    damaged, text = ring.create("ward")
    other, other_text = ring.create("ward")
    damage(store, f"access/{damaged.id}", how)
    assert ring.find(text) is None and not ring.is_valid(damaged.id)
    assert ring.find(other_text) == other and ring.list() == [other] and ring.any()
    assert ring.create("ward")[0] in ring.list()
