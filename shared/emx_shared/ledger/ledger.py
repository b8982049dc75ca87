"""What every operation of the ledger works on."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from redis.exceptions import RedisError

from emx_shared.contracts.states import JobState
from emx_shared.ledger import object_keys
from emx_shared.ledger.records import (
    BatchRecord,
    CutRecord,
    Delivery,
    Erasing,
    Feedback,
    JobRecord,
    OpenMarker,
    Outcome,
    Record,
    UnreadableRecord,
    is_whole,
    read_record,
)
from emx_shared.messaging import Queue, QueueUnavailable
from emx_shared.redis_state import RedisState
from emx_shared.settings import Settings
from emx_shared.store import NoSuchObject, Store

T = TypeVar("T")


@dataclass(frozen=True)
class Ledger:
    """A store, what Redis knows, a queue and the settings.

    Its methods read; whatever writes is an operation, a function in a module of its own. Reading raises StoreError
    while the store is unavailable.
    """

    store: Store
    redis: RedisState
    queue: Queue
    settings: Settings

    def record(self, id: str) -> Record | None:
        """Return what is recorded of a job or a batch, tombstones included; None if it was never committed."""
        return self._read(object_keys.record(id), read_record)

    def job(self, id: str) -> JobRecord | None:
        """Return a job's record; None if there is no such job, or it was abandoned or erased."""
        found = self.record(id)
        return found if isinstance(found, JobRecord) else None

    def batch(self, id: str) -> BatchRecord | None:
        """Return a batch's record; None if there is no such batch, or it was abandoned or erased."""
        found = self.record(id)
        return found if isinstance(found, BatchRecord) else None

    def outcome(self, id: str) -> Outcome | None:
        """Return how a job or a batch ended; None while it is open."""
        return self._read(object_keys.outcome(id), Outcome.load)

    def feedback(self, job: str) -> Feedback | None:
        """Return what readers said of a job's report; None if nobody said anything."""
        found = self._read(object_keys.feedback(job), Feedback.load)
        return found if found and found.versions else None

    def delivery(self, id: str) -> Delivery | None:
        """Return a webhook that is owed, or how it ended."""
        ended = self._read(object_keys.delivery(id), Delivery.load)
        return ended or self._read(object_keys.outbox(id), Delivery.load)

    def open_marker(self, id: str) -> OpenMarker:
        """Return the marker of an open job or batch; an empty one if it has none, or a damaged one."""
        return self.if_readable(self._open_marker, id) or OpenMarker()

    def _open_marker(self, id: str) -> OpenMarker | None:
        return self._read(object_keys.open_marker(id), OpenMarker.load)

    def erasing(self, id: str) -> Erasing | None:
        """Return the erasure of a job or a batch that is under way."""
        return self._read(object_keys.erasing(id), Erasing.load)

    def input(self, job: JobRecord) -> bytes:
        """Return a job's image as received. Raises NoSuchObject once it was erased."""
        return self.store.get(object_keys.job_input(job.id, job.input_sha256))

    def state(self, job: str, outcome: Outcome | None) -> JobState:
        """Return a job's state: terminal ones from the store alone; Redis tells running from queued."""
        if outcome:
            return outcome.state
        return JobState.RUNNING if self.redis.leases.is_held(job) else JobState.QUEUED

    def now(self) -> datetime:
        """Return the time by the store's clock, in UTC."""
        return self.store.now()

    def enqueue(self, job: JobRecord) -> bool:
        """Send a message to the job's queue. Return False if Redis is unavailable: the reconciler will do it.

        The message stands for any one job of the queue: tenants take turns (``redis_state/turns.py``).

        A process that dies in between leaves a job without a turn, or a turn without a message: the reconciler
        sees either, and an extra message does no harm.
        """
        try:
            self.line_up([job])
            self.queue.enqueue_read(job.id, job.priority)
        except (RedisError, QueueUnavailable):
            return False
        return True

    def line_up(self, jobs: list[JobRecord]) -> None:
        """Put jobs in their tenants' lines, in one call to Redis. Raises RedisError."""
        together = self.redis.connection.client.pipeline(transaction=False)
        for job in jobs:
            self.redis.turns.join(job.id, job.priority, job.tenant, together)
            self.redis.marks.mark_enqueued(job.id, job.priority, job.tenant, together)
            self.redis.listings.add_job(job.tenant, job.id, job.submitted_at, together=together)
        together.execute()

    def write_once(self, key: str, record: bytes) -> bool:
        """Write a record unless there is one. Return whether this writer did it. One that was cut is replaced."""
        if self.store.put_if_absent(key, record):
            return True
        try:
            found = self.store.get(key)
        except NoSuchObject:  # it was erased meanwhile
            return self.store.put_if_absent(key, record)
        return not is_whole(found) and self.store.replace(key, found, record)

    def if_readable(self, read: Callable[[str], T | None], id: str) -> T | None:
        """Return what a reading method returns, and None where it meets a record that can't be read.

        It is for records of others: one that is damaged must not stop what is done for the rest.
        """
        try:
            return read(id)
        except UnreadableRecord:
            return None

    def _read(self, key: str, load: Callable[[bytes], T]) -> T | None:
        """Return a record; None if there is none, or its writer died in the middle of it."""
        try:
            return load(self.store.get(key))
        except (NoSuchObject, CutRecord):
            return None
