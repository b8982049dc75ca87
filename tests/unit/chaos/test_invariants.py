"""The matrix's checks see each kind of fault that they are there for."""

import json
from pathlib import Path

import pytest

from emx_shared.contracts.states import JobState
from emx_shared.ledger import object_keys
from emx_shared.store.directory import DirectoryStore
from tests.chaos import invariants
from tests.chaos.book import Promise
from tests.chaos.receiver import Taken

SUCCEEDED = json.dumps({"state": "succeeded"}).encode()


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def ended(store: DirectoryStore, id: str, **outcome: object) -> bytes:
    data = json.dumps({"state": "succeeded", **outcome}).encode()
    store.put(object_keys.record(id), json.dumps({"kind": "job"}).encode())
    store.put(object_keys.outcome(id), data)
    return data


def kinds(found: object) -> list[tuple[str | None, str]]:
    return [(each.row, each.kind) for each in found]  # type: ignore[attr-defined]


def test_all_is_well_with_a_job_that_ended_as_it_should(store: DirectoryStore) -> None:
    job = Promise("a", "row", "job", hooked=True)
    first = {"a": ended(store, "a")}
    assert not kinds(invariants.check_outcomes(store, [job], first))
    assert not kinds(invariants.check_unpromised(store, [job]))
    assert not kinds(invariants.check_webhooks(first, [job], [Taken("m", "job.succeeded", "a")] * 2))
    assert not kinds(invariants.check_rest(store, [job], []))
    assert not kinds(invariants.check_erased(store, [("row", b"a name")], invariants.contents(store)))
    assert not kinds(invariants.check_list({"a"}, True, [job]))


@pytest.mark.parametrize("left", [None, b"", SUCCEEDED[:9]])
def test_a_job_without_a_whole_outcome_is_lost(store: DirectoryStore, left: bytes | None) -> None:
    if left is not None:
        store.put(object_keys.outcome("a"), left)
    assert kinds(invariants.check_outcomes(store, [Promise("a", "row", "job")], {})) == [("row", "lost")]


def test_a_report_that_was_thrown_away_is_lost(store: DirectoryStore) -> None:
    ended(store, "a", state="failed", failure={"code": "poison"})
    found = list(invariants.check_outcomes(store, [Promise("a", "row", "job")], {}))
    assert [each.text for each in found] == ["job a ended as failed poison"]


def test_an_outcome_that_was_changed_is_double_unless_it_was_erased(store: DirectoryStore) -> None:
    ended(store, "a", state="cancelled", erased=True)
    kept, erased = (
        Promise("a", "row", "job", {"cancelled"}),
        Promise("a", "row", "job", {"cancelled"}, erased=True),
    )
    assert kinds(invariants.check_outcomes(store, [kept], {"a": SUCCEEDED})) == [("row", "double_outcomes")]
    assert not kinds(invariants.check_outcomes(store, [erased], {"a": SUCCEEDED}))


def test_a_committed_job_whose_client_got_no_answer_must_end_too(store: DirectoryStore) -> None:
    store.put(object_keys.record("a"), json.dumps({"kind": "job"}).encode())
    store.put(object_keys.record("b"), json.dumps({"kind": "tombstone"}).encode())
    assert kinds(invariants.check_unpromised(store, [])) == [(None, "lost")]


def test_events_that_never_came_or_came_under_two_ids_are_owed() -> None:
    job, outcomes = Promise("a", "row", "job", hooked=True), {"a": SUCCEEDED}
    taken = [Taken("m", "job.succeeded", "a"), Taken("n", "job.succeeded", "a")]
    assert kinds(invariants.check_webhooks(outcomes, [job], [])) == [("row", "owed_webhooks")]
    assert kinds(invariants.check_webhooks(outcomes, [job], taken)) == [("row", "owed_webhooks")]


def test_two_reported_ends_of_one_job_are_double() -> None:
    taken = [Taken("m", "job.succeeded", "a"), Taken("n", "job.cancelled", "a")]
    found = invariants.check_webhooks({"a": SUCCEEDED}, [Promise("a", "row", "job", hooked=True)], taken)
    assert kinds(found) == [("row", "double_outcomes")]


def test_a_batch_has_to_count_its_items_as_they_ended(store: DirectoryStore) -> None:
    batch = Promise("b", "row", "batch", items=("x", "y"))
    ended(store, "x")
    ended(store, "y", state="failed")
    for row, state in enumerate((JobState.SUCCEEDED, JobState.FAILED)):
        store.put(object_keys.done_marker("b", 0, row, state), b"")
    ended(store, "b", counts={"succeeded": 1, "failed": 1})
    assert not kinds(invariants.check_batches(store, [batch]))
    ended(store, "b", counts={"succeeded": 2})
    assert kinds(invariants.check_batches(store, [batch])) == [("row", "lost")]
    store.delete(object_keys.done_marker("b", 0, 0, JobState.SUCCEEDED))
    assert kinds(invariants.check_batches(store, [batch])) == [("row", "lost")] * 2


def test_whatever_is_left_where_nothing_should_be_is_an_orphan(store: DirectoryStore) -> None:
    promise = Promise("a", "row", "job")
    ended(store, "a")
    for key in (object_keys.open_marker("a"), object_keys.outbox("d"), object_keys.erasing("a")):
        store.put(key, b"{}")
    store.put(object_keys.job_input("stray", "0" * 64), b"image")
    found = invariants.check_rest(store, [promise], ["part"])
    assert kinds(found) == [("row", "orphans"), (None, "orphans"), ("row", "orphans"), *[(None, "orphans")] * 2]


def test_bytes_of_an_erased_patient_are_found_in_objects_and_in_keys(store: DirectoryStore) -> None:
    store.put("jobs/a/input", b"... Doe ...")
    store.put("groups/Roe", b"")
    secrets = [("one", b"Doe"), ("two", b"Roe"), ("three", b"Poe")]
    found = invariants.check_erased(store, secrets, invariants.contents(store))
    assert kinds(found) == [("one", "orphans"), ("two", "orphans")]


def test_a_list_may_miss_jobs_only_while_it_says_so() -> None:
    jobs = [Promise("a", "row", "job"), Promise("b", "row", "batch"), Promise("c", "row", "job", erased=True)]
    assert kinds(invariants.check_list(set(), True, jobs)) == [("row", "lost")]
    assert not kinds(invariants.check_list(set(), False, jobs))
