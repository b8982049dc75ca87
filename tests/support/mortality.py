"""Processes that die right after one of their writes, and what tests of the ledger do all the time."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from emx_shared.contracts.states import JobState
from emx_shared.ledger import Ledger, NewJob, Reconciler, advance_batch, end_batch_erasure, finish, start
from emx_shared.ledger.records import Failure, Outcome
from emx_shared.store import Entry, Store


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

    def replace(self, key: str, expected: bytes, data: bytes) -> bool:
        won = self._store.replace(key, expected, data)
        self._count()
        return won

    def delete(self, key: str) -> None:
        self._store.delete(key)
        self._count()

    def list(self, prefix: str) -> Iterator[Entry]:
        return self._store.list(prefix)

    def now(self) -> datetime:
        return self._store.now()

    def _ask_clock(self) -> float:
        return self.now().timestamp()


def die_after_each_write(ledger: Ledger, operation: Callable[[Ledger], object], writes: int | None = None) -> bool:
    """Run ``operation`` until it has died once after its n-th write, n = 1, 2, … False once it gets through.

    ``writes``: n, where the operation doesn't count by itself.
    """
    if writes is None:
        writes = operation.writes = getattr(operation, "writes", 0) + 1  # type: ignore[attr-defined]
    try:
        operation(replace(ledger, store=MortalStore(ledger.store, writes)))
    except Killed:
        return True
    return False


def reconcile(ledger: Ledger) -> None:
    """Rounds as if the epoch had been there all along."""
    ledger.redis.epoch.begin()
    reconciler = Reconciler(ledger)
    for _ in range(3):
        reconciler.round()


def new_job(data: bytes = b"an image", **fields: object) -> NewJob:
    return NewJob(data, "image/png", **fields)  # type: ignore[arg-type]


def failure(ledger: Ledger) -> Outcome:
    return Outcome(state=JobState.FAILED, failure=Failure(code="x", message="x"), finished_at=ledger.store.now())


def listed(ledger: Ledger, prefix: str) -> list[str]:
    return [entry.key for entry in ledger.store.list(prefix)]


def as_courier(ledger: Ledger, batch: str) -> None:
    """Do what a courier does when it is sent the hints of a batch."""
    advance_batch(ledger, batch)
    end_batch_erasure(ledger, batch)


def run(ledger: Ledger, job: str) -> None:
    started = start(ledger, job, "token")
    assert started
    finish(ledger, job, failure(ledger))
    ledger.redis.leases.release(job, "token")
