"""Writes that are cut, and what is left of them: nothing, or something that counts as nothing."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emx_shared.contracts.states import JobState
from emx_shared.ledger import Ledger, NewJob, Reconciler, deliver, finish, object_keys, submit
from emx_shared.ledger.jobs.delivery import EndpointAnswer
from emx_shared.ledger.records import Outcome
from emx_shared.store import NoSuchObject, Store, StoreError, StoreFull, UnsuitableStore
from emx_shared.store.directory import DirectoryStore
from emx_shared.store.s3 import S3Store
from support.cutting_proxy import CUTS, Cut, CuttingProxy, cutting_proxy

DATA = b"x" * 100_000


@pytest.fixture
def proxy(seaweed: str) -> Iterator[CuttingProxy]:
    with cutting_proxy(seaweed) as made:
        yield made


def through(proxy: CuttingProxy) -> S3Store:
    return S3Store(proxy.address, "ready", "any", "any", "us-east-1", secure=False)


@pytest.mark.parametrize("cut", CUTS)
def test_a_write_that_is_cut_once_is_whole_in_the_end(proxy: CuttingProxy, cut: Cut) -> None:
    store = through(proxy)
    for name, write in (("put", store.put), ("once", store.put_if_absent)):
        key = f"cut/{name}-{cut.replace(' ', '-')}"
        proxy.cuts = [cut]
        write(key, DATA)
        assert not proxy.cuts and store.get(key) == DATA


@pytest.mark.parametrize("cut", CUTS[:3])
def test_of_a_write_that_is_cut_every_time_nothing_is_kept(proxy: CuttingProxy, cut: Cut) -> None:
    store, key = through(proxy), f"never/{cut.replace(' ', '-')}"
    proxy.cuts = [cut] * 10
    with pytest.raises(StoreError):
        store.put_if_absent(key, DATA)
    proxy.cuts = []
    with pytest.raises(NoSuchObject):
        store.get(key)
    assert store.put_if_absent(key, DATA), "the way is free for the next writer"


def test_a_store_that_keeps_cut_writes_is_refused(proxy: CuttingProxy) -> None:
    through(proxy).check()
    proxy.dropped_header = b"content-md5"  # without a digest, SeaweedFS keeps an empty object
    with pytest.raises(UnsuitableStore, match="keeps a part of an object"):
        through(proxy).check()


def test_an_object_is_replaced_only_as_long_as_it_is_the_same(store: Store) -> None:
    store.put("a", b"1")
    assert not store.replace("a", b"other", b"2") and store.get("a") == b"1"
    assert store.replace("a", b"1", b"2") and store.get("a") == b"2"
    assert not store.replace("missing", b"", b"2") and not store.exists("missing")


@pytest.mark.parametrize("new_store", ["seaweed", "moto"], indirect=True)
def test_an_object_that_is_deleted_while_it_is_replaced_stays_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a", b"1")
    read = type(store).get

    def read_and_delete(key: str) -> bytes:
        data = read(store, key)
        store.delete(key)
        return data

    monkeypatch.setattr(store, "get", read_and_delete)
    assert not store.replace("a", b"1", b"2")
    monkeypatch.undo()
    assert not store.exists("a")


@pytest.mark.parametrize("left", [b"", b'{"state": "succ', b'{"state": "failed", "failure": {"code": "x"}'])
def test_a_cut_record_counts_as_absent_and_is_written_again(ledger: Ledger, left: bytes) -> None:
    """Whatever a store without digests may have kept."""
    url = "https://ris.example.org/hook"
    new = NewJob(b"an image", "image/png", webhook_url=url, idempotency_key="k")
    job = submit(ledger, new)[0].id
    ledger.store.put(object_keys.record(job), left)
    assert ledger.record(job) is None
    assert submit(ledger, new)[0].id == job, "a retry of the key writes it anew"
    ledger.store.put(object_keys.outcome(job), left)
    assert ledger.outcome(job) is None
    ended = Outcome(state=JobState.CANCELLED, finished_at=ledger.now())
    finish(ledger, job, ended)
    assert ledger.outcome(job) == ended
    (entry,) = ledger.store.list(object_keys.OUTBOX)
    delivery = entry.key.removeprefix(object_keys.OUTBOX)
    ledger.store.put(entry.key, left)
    assert deliver(ledger, delivery, lambda _: EndpointAnswer(204)) is None
    finish(ledger, job, ended)  # as the reconciler does, since its writer died before it closed the job
    ledger.store.put(object_keys.delivery(delivery), left)
    tried = deliver(ledger, delivery, lambda _: EndpointAnswer(204))
    assert tried and tried.status == "delivered" and ledger.delivery(delivery) == tried


def test_the_reconciler_ends_a_job_whose_outcome_was_cut(ledger: Ledger) -> None:
    job = submit(ledger, NewJob(b"an image", "image/png"))[0].id
    ledger.store.put(object_keys.outcome(job), b"")
    ledger.redis.marks.mark_ended(job, "succeeded")  # its worker believed so, and died
    ledger.redis.epoch.begin()
    Reconciler(ledger).round()
    assert ledger.redis.marks.standings([job])[0].enqueued, "it is read again"


FAILING: dict[str, Callable[[Store], Any]] = {
    "get": lambda store: store.get("a/b"),
    "put": lambda store: store.put("a/b", b"2"),
    "put_if_absent": lambda store: store.put_if_absent("a/c", b"2"),
    "replace": lambda store: store.replace("a/b", b"1", b"2"),
    "delete": lambda store: store.delete("a/b"),
    "list": lambda store: list(store.list("a/")),
    "size": lambda store: store.size("a/b"),
    "exists": lambda store: store.exists("a/b"),
}


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ESTALE, errno.EACCES, errno.EDQUOT])
@pytest.mark.parametrize("operation", FAILING)
def test_whatever_a_disk_says_is_an_error_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, number: int
) -> None:
    store = DirectoryStore(tmp_path)
    store.put("a/b", b"1")

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    for name in ("read_bytes", "stat", "unlink", "rglob"):
        monkeypatch.setattr(Path, name, fail)
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(StoreError) as caught:
        FAILING[operation](store)
    monkeypatch.undo()
    assert isinstance(caught.value, StoreFull) == (number == errno.EDQUOT)
    assert store.get("a/b") == b"1"
