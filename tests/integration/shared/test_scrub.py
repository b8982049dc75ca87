"""A scrub finds what is wrong in a store, mends it by the ledger's own rules, and leaves alone what is at work."""

import hashlib
import itertools
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from emx_shared.ledger import (
    Ledger,
    NewBatch,
    add_feedback,
    advance_batch,
    cancel,
    deliver,
    erase,
    erase_batch,
    erase_group,
    finish,
    object_keys,
    pause_batch,
    start,
    submit,
    submit_batch,
)
from emx_shared.ledger.batches.items import ended_items
from emx_shared.ledger.batches.manifest_pages import item_id, manifest_rows
from emx_shared.ledger.jobs.delivery import EndpointAnswer
from emx_shared.ledger.records import BatchRecord, Delivery, Feedback, FeedbackVersion, Outcome, Row, Tombstone
from emx_shared.ledger.scrub import examine
from emx_shared.ledger.scrub.batch_faults import faults_of_batch
from emx_shared.ledger.scrub.job_faults import faults_of_job
from emx_shared.ledger.scrub.view import View
from emx_shared.store import Store
from emx_shared.store.directory import DirectoryStore
from support.damage import damage
from support.mortality import as_courier, die_after_each_write, failure, listed, new_job, reconcile, run

HOOK = "https://ris.example.org/hook"
PNG = b"\x89PNG\r\n\x1a\n"
AT_ONCE = -5.0
"""Even what was written just now is judged; the clocks of S3 servers are as coarse as a second."""

CUT = b'{"format": "2.0", "ki'


def nowhere() -> str:
    """Return the id of nothing."""
    return str(uuid.uuid4())


def faults(ledger: Ledger, older_than: float = AT_ONCE) -> set[tuple[str, str]]:
    return {(fault.kind.code, fault.key) for fault in examine(ledger, older_than, lambda _: None)}


def mend(ledger: Ledger) -> None:
    for fault in examine(ledger, AT_ONCE, lambda _: None):
        if fault.mend:
            fault.mend()


def everything(store: Store) -> dict[str, bytes]:
    return {entry.key: store.get(entry.key) for entry in list(store.list(""))}


def batch_of(ledger: Ledger, size: int = 2, **options: object) -> BatchRecord:
    files = [(hashlib.sha256(PNG + bytes([n])).hexdigest(), PNG + bytes([n])) for n in range(size)]
    rows = [Row(image=f"file:{sha256}", name=f"row {n}", patient="p") for n, (sha256, _) in enumerate(files)]
    return submit_batch(ledger, NewBatch(**options), rows, files)  # type: ignore[arg-type]


def ended_job(ledger: Ledger, **fields: object) -> str:
    job = submit(ledger, new_job(**fields))[0].id
    run(ledger, job)
    return job


@pytest.fixture
def lively(ledger: Ledger) -> Ledger:
    """A ledger in which a little of everything has happened, and nothing is wrong."""
    submit(ledger, new_job(patient="p", study="s"))
    running = submit(ledger, new_job())[0].id
    assert start(ledger, running, "token")
    ended = ended_job(ledger, webhook_url=HOOK, patient="p")
    deliver(ledger, Delivery.id_of(ended, HOOK, "job.failed"), lambda _: EndpointAnswer(204))
    ended_job(ledger, webhook_url=HOOK)
    erase(ledger, ended_job(ledger, patient="erased"))
    reviewed_job(ledger, patient="p")
    erase(ledger, reviewed_job(ledger))
    ledger.store.put(object_keys.feedback_marker("default", ended_job(ledger)), b"")  # of a writer that died
    ledger.store.put(object_keys.upload("default", nowhere()), PNG)
    pause_batch(ledger, batch_of(ledger).id)
    advance_batch(ledger, batch_of(ledger).id)
    over = batch_of(ledger, webhook_url=HOOK, item_webhook_url=HOOK)
    advance_batch(ledger, over.id)
    erase(ledger, item_id(over.id, 0))
    run(ledger, item_id(over.id, 1))
    advance_batch(ledger, over.id)
    assert ledger.outcome(over.id)
    cancelled = batch_of(ledger)
    advance_batch(ledger, cancelled.id)
    cancel(ledger, cancelled.id)
    advance_batch(ledger, cancelled.id)
    erased = batch_of(ledger)
    advance_batch(ledger, erased.id)
    erase_batch(ledger, erased)
    as_courier(ledger, erased.id)
    return ledger


def test_nothing_is_found_where_nothing_is_wrong(lively: Ledger) -> None:
    assert faults(lively) == set()


Break = Callable[[Ledger], set[tuple[str, str]]]
"""Breaks something, and returns the faults to be found: code and key."""


def a_submission_that_stopped(ledger: Ledger) -> set[tuple[str, str]]:
    before = set(listed(ledger, object_keys.OPEN))
    die_after_each_write(ledger, lambda mortal: submit(mortal, new_job(patient="stopped")), 3)
    (marker,) = set(listed(ledger, object_keys.OPEN)) - before
    return {("uncommitted", marker)}


def a_cut_record(ledger: Ledger) -> set[tuple[str, str]]:
    job = submit(ledger, new_job())[0].id
    ledger.store.put(object_keys.record(job), CUT)
    return {("record-cut", object_keys.record(job))}


def a_cut_record_that_nobody_attends_to(ledger: Ledger) -> set[tuple[str, str]]:
    found = a_cut_record(ledger)
    ((_, key),) = found
    ledger.store.delete(object_keys.open_marker(key.split("/")[1]))
    return found


def a_cut_record_of_an_ended_job(ledger: Ledger) -> set[tuple[str, str]]:
    job = ended_job(ledger)
    ledger.store.put(object_keys.record(job), CUT)
    return {("record-lost", object_keys.record(job))}


def a_cut_record_of_an_item(ledger: Ledger) -> set[tuple[str, str]]:
    item = item_id(running_batch(ledger).id, 1)
    ledger.store.put(object_keys.record(item), CUT)
    return {("item-lost", object_keys.record(item))}


def running_batch(ledger: Ledger) -> BatchRecord:
    batch = batch_of(ledger)
    advance_batch(ledger, batch.id)
    return batch


def a_cut_record_of_a_batch(ledger: Ledger) -> set[tuple[str, str]]:
    batch = batch_of(ledger)
    ledger.store.put(object_keys.record(batch.id), CUT)
    return {("record-cut", object_keys.record(batch.id))}


def a_missing_record(ledger: Ledger) -> set[tuple[str, str]]:
    job = ended_job(ledger)
    ledger.store.delete(object_keys.record(job))
    return {("record-lost", object_keys.record(job))}


def damaged_objects(ledger: Ledger) -> set[tuple[str, str]]:
    record, outcome = submit(ledger, new_job())[0].id, ended_job(ledger)
    job = ended_job(ledger, webhook_url=HOOK)
    batch = batch_of(ledger)
    keys = [
        object_keys.record(record),
        object_keys.outcome(outcome),
        object_keys.outbox(Delivery.id_of(job, HOOK, "job.failed")),
        object_keys.page(batch.id, batch.nonce, 0),
    ]
    for key in keys:
        damage(ledger.store, key, "invalid")
    return {("damaged", key) for key in keys}


def objects_of_a_newer_version(ledger: Ledger) -> set[tuple[str, str]]:
    job = submit(ledger, new_job())[0].id
    keys = [object_keys.record(job), object_keys.erasing(nowhere()), object_keys.outbox(nowhere())]
    for key in keys:
        ledger.store.put(key, b'{"format": "2.7", "kind": "series", "status": "sung"}')
    return {("newer-version", key) for key in keys}


def damaged_open_markers(ledger: Ledger) -> set[tuple[str, str]]:
    markers = [object_keys.open_marker(submit(ledger, new_job())[0].id) for _ in range(3)]
    for marker, data in zip(markers, (b"", CUT, b'{"deaths": 3}'), strict=True):
        ledger.store.put(marker, data)
    return {("open-marker", marker) for marker in markers}


def an_ended_job_that_is_still_open(ledger: Ledger) -> set[tuple[str, str]]:
    job = submit(ledger, new_job())[0].id
    die_after_each_write(ledger, lambda mortal: finish(mortal, job, failure(ledger)), 1)
    return {("still-open", object_keys.open_marker(job))}


def open_jobs_without_markers(ledger: Ledger) -> set[tuple[str, str]]:
    ids = submit(ledger, new_job())[0].id, batch_of(ledger).id
    for id in ids:
        ledger.store.delete(object_keys.open_marker(id))
    return {("not-open", object_keys.open_marker(id)) for id in ids}


def a_cut_outcome(ledger: Ledger) -> set[tuple[str, str]]:
    job = ended_job(ledger)
    ledger.store.put(object_keys.outcome(job), b"")
    return {("outcome-cut", object_keys.outcome(job))}


def a_missing_image(ledger: Ledger) -> set[tuple[str, str]]:
    job, _ = submit(ledger, new_job())
    image = object_keys.job_input(job.id, job.input_sha256)
    ledger.store.delete(image)
    return {("image-missing", image)}


def images_that_nothing_names(ledger: Ledger) -> set[tuple[str, str]]:
    losing = object_keys.job_input(ended_job(ledger), "0" * 64)
    orphan = object_keys.job_input(nowhere(), "1" * 64)
    for key in (losing, orphan):
        ledger.store.put(key, PNG)
    return {("surplus-image", losing), ("surplus-image", orphan)}


def a_webhook_that_was_never_owed(ledger: Ledger) -> set[tuple[str, str]]:
    owed = [Delivery.id_of(ended_job(ledger, webhook_url=HOOK), HOOK, "job.failed") for _ in range(2)]
    ledger.store.delete(object_keys.outbox(owed[0]))
    ledger.store.put(object_keys.outbox(owed[1]), CUT)
    return {("webhook-not-owed", object_keys.outbox(id)) for id in owed} | {
        ("delivery-cut", object_keys.outbox(owed[1]))
    }


def a_delivery_that_was_cut(ledger: Ledger) -> set[tuple[str, str]]:
    key = object_keys.delivery(nowhere())
    ledger.store.put(key, CUT)
    return {("delivery-cut", key)}


def items_that_are_not_counted(ledger: Ledger) -> set[tuple[str, str]]:
    batch = running_batch(ledger)
    run(ledger, item_id(batch.id, 0))
    erase(ledger, item_id(batch.id, 1))
    markers = [
        object_keys.done_marker(batch.id, 0, 0, "failed"),
        object_keys.done_marker(batch.id, 0, 1, "cancelled"),
    ]  # type: ignore[arg-type]
    for marker in markers:
        ledger.store.delete(marker)
    return {("not-counted", marker) for marker in markers}


def an_item_that_is_counted_twice(ledger: Ledger) -> set[tuple[str, str]]:
    batch = running_batch(ledger)
    run(ledger, item_id(batch.id, 0))
    wrong = object_keys.done_marker(batch.id, 0, 0, "succeeded")  # type: ignore[arg-type]
    ledger.store.put(wrong, b"")
    return {("counted-twice", wrong)}


def a_batch_with_other_counts(ledger: Ledger) -> set[tuple[str, str]]:
    batch = running_batch(ledger)
    for row in range(2):
        run(ledger, item_id(batch.id, row))
    advance_batch(ledger, batch.id)
    key = object_keys.outcome(batch.id)
    stored = json.loads(ledger.store.get(key))
    ledger.store.put(key, json.dumps({**stored, "counts": {"failed": 1}}).encode())
    return {("counts-differ", key)}


def groups_that_miss_a_job(ledger: Ledger) -> set[tuple[str, str]]:
    job, _ = submit(ledger, new_job(patient="missed"))
    batch = batch_of(ledger, paused=True)
    keys = [*object_keys.groups(job), object_keys.unread_batch("default", batch.id)]
    for key in keys:
        ledger.store.delete(key)
    return {("not-in-group", key) for key in keys}


def groups_of_others(ledger: Ledger) -> set[tuple[str, str]]:
    job, _ = submit(ledger, new_job(patient="a"))
    gone = ended_job(ledger)
    erase(ledger, gone)
    group = object_keys.group("default", "patient", "b")
    keys = [f"{group}{id}" for id in (job.id, gone, nowhere())]
    for key in keys:
        ledger.store.put(key, b"")
    return {("stray-group", key) for key in keys}


def erasures_that_stopped(ledger: Ledger) -> set[tuple[str, str]]:
    stopped, cut = ended_job(ledger), ended_job(ledger)
    die_after_each_write(ledger, lambda mortal: erase(mortal, stopped), 1)
    ledger.store.put(object_keys.erasing(cut), CUT)
    unknown = nowhere()
    ledger.store.put(object_keys.erasing(unknown), b"")
    half = ended_job(ledger)
    record = ledger.job(half)
    assert record
    tombstone = Tombstone(why="erased", id=half, submitted_at=record.submitted_at)
    ledger.store.put(object_keys.record(half), tombstone.dump())
    batch = running_batch(ledger)
    erase_batch(ledger, batch)
    markers = [object_keys.erasing(id) for id in (stopped, cut, unknown, batch.id)]
    return {("erasure-stopped", key) for key in (*markers, object_keys.record(half))}


def lost_pages(ledger: Ledger) -> set[tuple[str, str]]:
    running, unread = running_batch(ledger), batch_of(ledger)
    erase(ledger, item_id(running.id, 1))
    pages = [object_keys.page(batch.id, batch.nonce, 0) for batch in (running, unread)]
    ledger.store.put(pages[0], CUT)
    ledger.store.delete(pages[1])
    return {("page-lost", page) for page in pages}


def a_damaged_cursor(ledger: Ledger) -> set[tuple[str, str]]:
    running, over = running_batch(ledger), running_batch(ledger)
    cancel(ledger, over.id)
    advance_batch(ledger, over.id)
    keys = [object_keys.cursor(batch.id) for batch in (running, over)]
    for key in keys:
        ledger.store.put(key, b"")
    return {("cursor", key) for key in keys}


def files_of_no_batch(ledger: Ledger) -> set[tuple[str, str]]:
    batch = batch_of(ledger)
    keys = [
        object_keys.page(batch.id, "of-the-losing-twin", 0),
        object_keys.done_marker(nowhere(), 0, 0, "failed"),  # type: ignore[arg-type]
    ]
    for key in keys:
        ledger.store.put(key, b"")
    return {("stray-batch-file", key) for key in keys}


def what_dead_processes_left(ledger: Ledger) -> set[tuple[str, str]]:
    upload, used = object_keys.upload("default", "used"), object_keys.used_upload("default", "used")
    unread = object_keys.unread_batch("default", nowhere())
    for key in (upload, used, "probe/x", unread):
        ledger.store.put(key, PNG)
    found = {("upload-left", upload), ("probe", "probe/x"), ("stale-marker", unread)}
    if isinstance(ledger.store, DirectoryStore):
        part = ledger.store.root / ".parts" / "dead"
        part.write_bytes(PNG)
        os.utime(part, (time.time() - 100,) * 2)
        found.add(("part", ".parts/dead"))
    return found


def reviewed_job(ledger: Ledger, **fields: object) -> str:
    id = ended_job(ledger, **fields)
    job = ledger.job(id)
    assert job
    add_feedback(ledger, job, FeedbackVersion(version=1, reviewed_at=ledger.now(), reviewer="AB", verdict="agree"))
    return id


def feedback_of_jobs_that_are_gone(ledger: Ledger) -> set[tuple[str, str]]:
    gone, unknown, data = reviewed_job(ledger), nowhere(), Feedback().dump()
    erase(ledger, gone)
    markers = [object_keys.feedback_marker("default", id) for id in (gone, unknown)]
    markers.append(object_keys.feedback_marker("another", ended_job(ledger)))
    for key in (object_keys.feedback(gone), object_keys.feedback(unknown), *markers):
        ledger.store.put(key, data)
    return {
        ("erasure-stopped", object_keys.record(gone)),
        *(("stray-feedback", key) for key in (object_keys.feedback(unknown), *markers)),
    }


def feedback_that_lists_would_miss(ledger: Ledger) -> set[tuple[str, str]]:
    marker = object_keys.feedback_marker("default", reviewed_job(ledger))
    ledger.store.delete(marker)
    return {("feedback-not-listed", marker)}


def feedback_that_cannot_be_read(ledger: Ledger) -> set[tuple[str, str]]:
    cut, invalid = (object_keys.feedback(reviewed_job(ledger)) for _ in range(2))
    ledger.store.put(cut, CUT)
    ledger.store.put(invalid, b'{"format": "2.0", "versions": 3}')
    return {("feedback-cut", cut), ("damaged", invalid)}


def unknown_objects(ledger: Ledger) -> set[tuple[str, str]]:
    keys = [f"jobs/{ended_job(ledger)}/notes.txt", f"batches/{batch_of(ledger).id}/x"]
    for key in keys:
        ledger.store.put(key, b"?")
    return {("unknown", key) for key in keys}


def damaged_keys(ledger: Ledger) -> set[tuple[str, str]]:
    keys = ["access/abcdefabcdef", "secrets/webhooks/default"]
    for key in keys:
        ledger.store.put(key, CUT)
    return {("key-damaged", key) for key in keys}


BREAKS: list[Break] = [
    a_submission_that_stopped,
    a_cut_record,
    a_cut_record_that_nobody_attends_to,
    a_cut_record_of_an_ended_job,
    a_cut_record_of_an_item,
    a_cut_record_of_a_batch,
    a_missing_record,
    damaged_objects,
    objects_of_a_newer_version,
    damaged_open_markers,
    an_ended_job_that_is_still_open,
    open_jobs_without_markers,
    a_cut_outcome,
    a_missing_image,
    images_that_nothing_names,
    a_webhook_that_was_never_owed,
    a_delivery_that_was_cut,
    items_that_are_not_counted,
    an_item_that_is_counted_twice,
    a_batch_with_other_counts,
    groups_that_miss_a_job,
    groups_of_others,
    erasures_that_stopped,
    lost_pages,
    a_damaged_cursor,
    files_of_no_batch,
    what_dead_processes_left,
    feedback_of_jobs_that_are_gone,
    feedback_that_lists_would_miss,
    feedback_that_cannot_be_read,
    unknown_objects,
    damaged_keys,
]
UNMENDABLE = {
    "record-lost",
    "damaged",
    "newer-version",
    "image-missing",
    "counts-differ",
    "feedback-cut",
    "unknown",
    "key-damaged",
}


@pytest.mark.parametrize("new_store", ["directory"], indirect=True)
@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.__name__)
def test_what_is_wrong_is_found_and_mended(ledger: Ledger, broken: Break) -> None:
    expected = broken(ledger)
    is_found_and_mended(ledger, expected)


def test_everything_is_found_and_mended_at_once(lively: Ledger) -> None:
    expected = set().union(*(broken(lively) for broken in BREAKS))
    is_found_and_mended(lively, expected)


def is_found_and_mended(ledger: Ledger, expected: set[tuple[str, str]]) -> None:
    before = everything(ledger.store)
    assert faults(ledger) == expected
    assert everything(ledger.store) == before, "looking changes nothing"
    mend(ledger)
    left = faults(ledger)
    assert left == {found for found in expected if found[0] in UNMENDABLE}
    kept = everything(ledger.store)
    for _, key in left:
        assert kept.get(key) == before.get(key), "what can't be mended stays as it is"


def test_what_is_young_is_left_to_whoever_is_at_it(ledger: Ledger) -> None:
    for broken in (
        a_submission_that_stopped,
        a_cut_record,
        an_ended_job_that_is_still_open,
        images_that_nothing_names,
        a_webhook_that_was_never_owed,
        erasures_that_stopped,
        files_of_no_batch,
        what_dead_processes_left,
        groups_of_others,
        feedback_of_jobs_that_are_gone,
    ):
        broken(ledger)
    assert {code for code, _ in faults(ledger, older_than=3600.0)} <= {"delivery-cut"}


# What mending makes of them


def test_a_cut_outcome_is_read_again_and_told_again(ledger: Ledger) -> None:
    job = ended_job(ledger, webhook_url=HOOK)
    deliver(ledger, Delivery.id_of(job, HOOK, "job.failed"), lambda _: EndpointAnswer(204))
    ledger.store.put(object_keys.outcome(job), CUT)
    mend(ledger)
    reconcile(ledger)
    assert ("read", job) in ledger.queue.sent[-3:]  # type: ignore[attr-defined]
    run(ledger, job)
    assert ledger.outcome(job) and not listed(ledger, object_keys.OPEN) + listed(ledger, object_keys.OUTBOX)


def test_the_key_of_a_cut_record_makes_another_job(ledger: Ledger) -> None:
    new = new_job(idempotency_key="k", patient="p")
    job = submit(ledger, new)[0]
    ledger.store.put(object_keys.record(job.id), job.dump()[:-5])
    mend(ledger)
    assert not listed(ledger, object_keys.inputs(job.id)) + listed(ledger, "groups/")
    assert submit(ledger, new)[0].id != job.id


def test_a_client_that_repeats_its_submission_restores_a_lost_record(ledger: Ledger) -> None:
    new = new_job(idempotency_key="k")
    job = submit(ledger, new)[0].id
    run(ledger, job)
    first = ledger.outcome(job)
    ledger.store.put(object_keys.record(job), b"")
    mend(ledger)
    assert submit(ledger, new)[0].id == job
    assert ledger.outcome(job) == first


@pytest.mark.parametrize("image", ["its own", "the manifest's", "none"])
def test_a_batch_with_a_cut_item_ends(ledger: Ledger, image: str) -> None:
    batch = running_batch(ledger)
    item = item_id(batch.id, 1)
    run(ledger, item_id(batch.id, 0))
    ledger.store.put(object_keys.record(item), CUT)
    if image != "its own":
        ledger.store.delete_below(object_keys.inputs(item))
    if image == "none":
        ledger.store.delete_below(f"{object_keys.submission(batch.id, batch.nonce)}input-")
    mend(ledger)
    if image == "none":
        outcome = ledger.outcome(item)
        assert outcome and outcome.failure and outcome.failure.code == "no-image"
    else:
        job = ledger.job(item)
        assert job and job.item and job.item.name == "row 1" and ledger.input(job) == PNG + b"\x01"
        run(ledger, item)
    advance_batch(ledger, batch.id)
    outcome = ledger.outcome(batch.id)
    assert outcome and outcome.counts == {"failed": 2}


def test_a_page_is_made_again_of_what_its_jobs_say(ledger: Ledger) -> None:
    narrow = replace(ledger, settings=ledger.settings.model_copy(update={"batch_window": 2}))
    batch = batch_of(narrow, size=3)
    advance_batch(narrow, batch.id)
    erase(ledger, item_id(batch.id, 1))
    ledger.store.put(object_keys.page(batch.id, batch.nonce, 0), CUT)
    mend(ledger)
    rows = [row for _, row in manifest_rows(ledger, batch)]
    assert [row.image for row in rows] == [f"job:{item_id(batch.id, 0)}", "erased:", "lost:"]
    assert (rows[0].name, rows[0].patient) == ("row 0", "p")
    run(ledger, item_id(batch.id, 0))
    for _ in range(2):
        ledger.redis.connection.client.flushall()  # counts are a minute old at most
        advance_batch(ledger, batch.id)
    outcome = ledger.outcome(batch.id)
    assert outcome and outcome.counts == {"cancelled": 1, "failed": 2}


def test_a_webhook_that_was_never_owed_is_sent(ledger: Ledger) -> None:
    a_webhook_that_was_never_owed(ledger)
    mend(ledger)
    owed = [key.removeprefix(object_keys.OUTBOX) for key in listed(ledger, object_keys.OUTBOX)]
    assert len(owed) == 2
    for id in owed:
        tried = deliver(ledger, id, lambda _: EndpointAnswer(204))
        assert tried and tried.status == "delivered"


def test_a_patient_whose_marker_was_missing_can_be_erased(ledger: Ledger) -> None:
    groups_that_miss_a_job(ledger)
    assert (
        erase_group(ledger, "default", "patient", "missed") == erase_group(ledger, "default", "patient", "p") == 0
    )
    mend(ledger)
    assert erase_group(ledger, "default", "patient", "missed") == 1
    assert erase_group(ledger, "default", "patient", "p") == 2


def test_erasures_that_stopped_are_brought_to_their_end(ledger: Ledger) -> None:
    erasures_that_stopped(ledger)
    mend(ledger)
    assert not listed(ledger, object_keys.ERASE) + listed(ledger, "batches/")
    assert not [key for key in listed(ledger, object_keys.JOBS) if "input-" in key]


def test_a_batch_whose_markers_were_lost_ends(ledger: Ledger) -> None:
    batch = running_batch(ledger)
    for row in range(2):
        run(ledger, item_id(batch.id, row))
    ledger.store.delete_below(object_keys.done_markers(batch.id))
    ledger.store.delete(object_keys.open_marker(batch.id))
    ledger.redis.connection.client.flushall()
    mend(ledger)
    advance_batch(ledger, batch.id)
    assert ended_items(ledger, batch.id) == {0: "failed", 1: "failed"}
    outcome = ledger.outcome(batch.id)
    assert outcome and outcome.counts == {"failed": 2}


def test_a_batch_that_ends_while_it_is_looked_at_has_its_counts(ledger: Ledger) -> None:
    batch = running_batch(ledger)
    listed_before = list(ledger.store.list(object_keys.batch(batch.id)))
    for row in range(2):
        run(ledger, item_id(batch.id, row))
    advance_batch(ledger, batch.id)
    assert ledger.outcome(batch.id)
    assert not list(faults_of_batch(View(ledger, 60), batch.id, listed_before))


def test_a_job_that_comes_and_ends_while_it_is_looked_at_has_its_record(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(ledger, new_job())[0].id
    record = ledger.store.get(object_keys.record(job))
    ledger.store.delete(object_keys.record(job))

    def ends_meanwhile(view: View, id: str) -> bool:
        ledger.store.put(object_keys.record(job), record)
        run(ledger, job)
        return False

    entries = list(ledger.store.list(f"{object_keys.JOBS}{job}/"))
    monkeypatch.setattr(View, "is_open", ends_meanwhile)
    found = list(faults_of_job(View(ledger, AT_ONCE), job, entries))
    assert not [fault for fault in found if fault.mend is None]


@pytest.mark.parametrize("new_store", ["directory"], indirect=True)
def test_mending_beside_a_working_ledger_changes_nothing_for_anyone(ledger: Ledger) -> None:
    """Though it judges even what was written a moment ago."""
    ledger = replace(ledger, settings=ledger.settings.model_copy(update={"abandon_after": 600.0}))
    first: dict[str, Outcome] = {}
    erased: list[str] = []
    counts: list[dict[str, int] | None] = []
    over = threading.Event()

    def live(number: int) -> None:
        for turn in itertools.count():
            if over.is_set():
                return
            patient = f"{number}-{turn}"
            job = ended_job(ledger, webhook_url=HOOK, patient=patient)
            first[job] = ledger.outcome(job) or pytest.fail("it has ended")
            deliver(ledger, Delivery.id_of(job, HOOK, "job.failed"), lambda _: EndpointAnswer(204))
            batch = running_batch(ledger)
            for row in range(2):
                run(ledger, item_id(batch.id, row))
            advance_batch(ledger, batch.id)
            outcome = ledger.outcome(batch.id)
            counts.append(outcome and outcome.counts)
            if turn % 2:
                assert erase_group(ledger, "default", "patient", patient) == 1
                erased.append(job)

    with ThreadPoolExecutor(3) as threads:
        living = [threads.submit(live, number) for number in range(3)]
        try:
            while len(first) < 24 and not any(each.done() for each in living):
                for fault in examine(ledger, 0.0, lambda _: None):
                    assert fault.mend, fault
                    fault.mend()
        finally:
            over.set()
        for each in living:
            each.result()
    assert len(erased) > 5
    for job, outcome in first.items():
        found = ledger.outcome(job)
        assert found and (found.erased if job in erased else found == outcome)
    assert counts == [{"failed": 2}] * len(counts)
    mend(ledger)
    assert faults(ledger) == set()
    assert (
        not listed(ledger, object_keys.OPEN)
        + listed(ledger, object_keys.ERASE)
        + listed(ledger, object_keys.OUTBOX)
    )
