"""What must hold once everything has ended, checked on the store, the API's lists and the receiver."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from emx_shared.contracts.states import BatchState, JobState
from emx_shared.ledger import object_keys
from emx_shared.store import NoSuchObject, Store
from tests.chaos.book import Promise
from tests.chaos.observer import read_whole
from tests.chaos.receiver import Taken

Kind = Literal["lost", "double_outcomes", "owed_webhooks", "orphans"]
_AT_REST_EMPTY = (object_keys.OPEN, object_keys.OUTBOX, object_keys.ERASE)


@dataclass(frozen=True)
class Violation:
    """An invariant that didn't hold, in a sentence without patient data.

    Attributes:
        row: name of the row whose job it is about; None if that can't be told.
    """

    row: str | None
    kind: Kind
    text: str


def check_outcomes(store: Store, promises: Iterable[Promise], first: Mapping[str, bytes]) -> Iterable[Violation]:
    """Find promises without an outcome, with a wrong one, or with one that was changed.

    Args:
        store: where outcomes are.
        promises: what was accepted.
        first: the bytes of each outcome when it was first seen.
    """
    for promise in promises:
        data = read_whole(store, object_keys.outcome(promise.id))
        if data is None:
            yield Violation(promise.row, "lost", f"{promise.kind} {promise.id} has no outcome")
            continue
        outcome = json.loads(data)
        if outcome["state"] not in promise.ends:
            failure = outcome.get("failure") or {}
            why = f"{outcome['state']} {failure.get('code', '')}".strip()
            yield Violation(promise.row, "lost", f"{promise.kind} {promise.id} ended as {why}")
        if data != first.get(promise.id, data) and not (promise.erased and outcome.get("erased")):
            yield Violation(promise.row, "double_outcomes", f"the outcome of {promise.id} was changed")


def check_unpromised(store: Store, promises: Iterable[Promise]) -> Iterable[Violation]:
    """Find jobs and batches that were committed, but whose client got no answer, without an outcome."""
    known = {promise.id for promise in promises}
    for entry in store.list(object_keys.JOBS):
        id = object_keys.id_of_record(entry.key)
        if id is None or id in known:
            continue
        data = read_whole(store, entry.key)
        if data and json.loads(data)["kind"] != "tombstone" and not read_whole(store, object_keys.outcome(id)):
            yield Violation(None, "lost", f"{id}, whose client got no answer, has no outcome")


def check_webhooks(
    outcomes: Mapping[str, bytes], promises: Iterable[Promise], taken: Iterable[Taken]
) -> Iterable[Violation]:
    """Find events that never came, came for two outcomes, or came under two ids.

    Args:
        outcomes: the bytes of each, by id.
        promises: what was accepted.
        taken: what the receiver took.
    """
    events = defaultdict[str, list[Taken]](list)
    for each in taken:
        events[each.subject].append(each)
    for promise in promises:
        came = events[promise.id]
        if len({each.event for each in came}) > 1:
            text = f"{promise.id} was reported as {' and as '.join(sorted({each.event for each in came}))}"
            yield Violation(promise.row, "double_outcomes", text)
        if len({each.message for each in came}) > len({each.event for each in came}):
            yield Violation(promise.row, "owed_webhooks", f"an event of {promise.id} came under two ids")
        if not promise.hooked or promise.erased:
            continue
        data = outcomes.get(promise.id)
        if data and _event(promise, JobState(json.loads(data)["state"])) not in {each.event for each in came}:
            yield Violation(promise.row, "owed_webhooks", f"the event of {promise.kind} {promise.id} never came")


def check_batches(store: Store, promises: Iterable[Promise]) -> Iterable[Violation]:
    """Find batches whose counts differ from their items' outcomes or from their done-markers."""
    for batch in promises:
        data = read_whole(store, object_keys.outcome(batch.id)) if batch.kind == "batch" else None
        if data is None or batch.erased:
            continue
        outcomes = [read_whole(store, object_keys.outcome(item)) for item in batch.items]
        items = Counter(json.loads(each)["state"] for each in outcomes if each)
        marked = Counter(
            object_keys.read_done_marker(entry.key)[1].value
            for entry in store.list(object_keys.done_markers(batch.id))
        )
        counted = Counter(json.loads(data).get("counts") or {})
        if json.loads(data)["state"] == "succeeded" and counted != items:
            yield Violation(batch.row, "lost", f"batch {batch.id} counts {dict(counted)}, its items {dict(items)}")
        if marked != items:
            yield Violation(batch.row, "lost", f"batch {batch.id} marks {dict(marked)}, its items {dict(items)}")


def check_rest(store: Store, promises: Iterable[Promise], unfinished: Iterable[str]) -> Iterable[Violation]:
    """Find what is left of operations that should have ended.

    Args:
        store: where to look.
        promises: what was accepted.
        unfinished: names of writes that were never finished.
    """
    rows = {promise.id: promise.row for promise in promises}
    for prefix in _AT_REST_EMPTY:
        for entry in store.list(prefix):
            row = rows.get(entry.key.removeprefix(prefix))
            yield Violation(row, "orphans", f"{entry.key} is left{_webhook(store, entry.key)}")
    for name in unfinished:
        yield Violation(None, "orphans", f".parts/{name} is left of a write that was never finished")
    folders = defaultdict[str, set[str]](set)
    for entry in store.list(object_keys.JOBS):
        id, _, name = entry.key.removeprefix(object_keys.JOBS).partition("/")
        folders[id].add(name)
    for id, names in folders.items():
        if "request.json" not in names:
            yield Violation(rows.get(id), "orphans", f"{id} has {', '.join(sorted(names))}, and no record")


def check_erased(
    store: Store, secrets: Iterable[tuple[str, bytes]], contents: Iterable[bytes]
) -> Iterable[Violation]:
    """Find bytes of erased patients anywhere in the store.

    Args:
        store: whose keys are searched.
        secrets: bytes to look for, each with its row.
        contents: of all of the store's objects or files.
    """
    names = [entry.key.encode() for entry in store.list("")]
    found = {secret for content in (*names, *contents) for _, secret in secrets if secret in content}
    for row, secret in secrets:
        if secret in found:
            yield Violation(row, "orphans", "bytes of an erased patient are still in the store")


def check_list(listed: set[str], complete: bool, promises: Iterable[Promise]) -> Iterable[Violation]:
    """Find jobs that are missing in a list which says that it is complete."""
    for promise in promises if complete else ():
        if promise.kind != "batch" and not promise.erased and promise.id not in listed:
            text = f"{promise.kind} {promise.id} is missing in a list that says it is complete"
            yield Violation(promise.row, "lost", text)


def contents(store: Store) -> Iterable[bytes]:
    """Yield the bytes of every object."""
    for entry in store.list(""):
        try:
            yield store.get(entry.key)
        except NoSuchObject:
            continue


def _webhook(store: Store, key: str) -> str:
    """Return what the outbox says of a webhook: its tries, and when it is due."""
    data = read_whole(store, key) if key.startswith(object_keys.OUTBOX) else None
    owed = json.loads(data) if data else {}
    if not owed.get("next_at"):
        return ""
    due = (datetime.fromisoformat(owed["next_at"]) - store.now()).total_seconds()
    ended = store.exists(object_keys.delivery(key.removeprefix(object_keys.OUTBOX)))
    return f": {owed['tries']} tries, due in {due:.0f} s, {'ended' if ended else 'not ended'}"


def _event(promise: Promise, state: JobState) -> str:
    return f"batch.{BatchState.of_outcome(state)}" if promise.kind == "batch" else f"job.{state}"
