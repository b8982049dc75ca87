"""Reconcile: whatever stopped half-way is brought to its end."""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import TypeVar

from redis.exceptions import RedisError

from emx_shared.contracts.states import JobState
from emx_shared.ledger import object_keys
from emx_shared.ledger.batches.batch_progress import advance_batch
from emx_shared.ledger.batches.items import awaited_uploads
from emx_shared.ledger.damage import damaged_job
from emx_shared.ledger.jobs.abandonment import abandon
from emx_shared.ledger.jobs.delivery import longest_try
from emx_shared.ledger.jobs.erasure import end_erasure
from emx_shared.ledger.jobs.finish import expire, finish, refuse
from emx_shared.ledger.jobs.retention import apply_retention
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import (
    BatchRecord,
    Failure,
    JobRecord,
    Outcome,
    Tombstone,
    UnreadableRecord,
)
from emx_shared.ledger.sliced_listing import SlicedListing
from emx_shared.messaging import READ_QUEUES, QueueUnavailable
from emx_shared.redis_state import Standing
from emx_shared.store import StoreError
from emx_shared.store.base import Entry

log = logging.getLogger("emx.ledger")
T = TypeVar("T")

POISON_DEATHS = 4
"""Lapsed leases before a job is poison: one in company, three alone."""

SWEEP_EVERY = 60.0
"""Seconds between looks at the store about each open job, even where Redis says that all is well."""

_SECONDS = 1.0
"""For each thing that a round does. What is left is for the next one: nothing waits long for the others."""

_DUE_AT_ONCE = 500
"""Most webhooks that are named to the couriers at a time."""

_UNFINISHED_SECONDS = 3600.0
"""Age at which what a write left behind is deleted, even if its process seems to live."""

_MESSAGES_AT_ONCE = 2000
"""Most messages that a queue is filled up to: a round's worth of reading for many workers."""

_THREADS = 8
"""In which the store is asked about jobs of which Redis knows nothing."""


_HISTORY = (object_keys.JOBS, object_keys.DELIVERIES, object_keys.OUTBOX)


class Reconciler:
    """Brings open jobs, owed webhooks and erasures forward, round after round.

    It lists ``open/``, ``outbox/`` and ``erase/`` only: its cost grows with what is open, not with history. A
    round takes a few seconds at most, and the next goes on where it stopped. Any number may run at once. It
    remembers nothing but how far it is, and when it first missed Redis's epoch.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._missed_since: float | None = None
        self._unreadable: set[str] = set()
        self._erasures = self._listing(object_keys.ERASE)
        self._open = self._listing(object_keys.OPEN)
        self._outbox = self._listing(object_keys.OUTBOX)
        self._sweep = self._listing(object_keys.OPEN, every=SWEEP_EVERY)
        self._history = self._listing(*_HISTORY)
        self._history_epoch: str | None = None
        self._swept_at = -math.inf
        self._missing: Counter[str] = Counter()

    def round(self) -> bool:
        """Go on, with a little of everything. Return whether all that is open was looked at.

        Raises:
            StoreError, RedisError: one of them is unavailable; what was left is for the next round.
        """
        redis = self.ledger.redis
        for erasures in self._erasures.slices(_SECONDS):
            self._attempt_all(erasures, self._resume_erasure)
        if redis.ping():
            self._resume_deliveries()
            if self._may_enqueue():
                self._advance_open_jobs()
                self._list_history()
        self.ledger.store.drop_unfinished(_UNFINISHED_SECONDS)
        if time.monotonic() - self._swept_at > SWEEP_EVERY:
            self._swept_at = time.monotonic()
            apply_retention(self.ledger)
            self._drop_uploads()
        return self._open.at_end and self._outbox.at_end and self._erasures.at_end

    def _listing(self, *prefixes: str, every: float = 0.0) -> SlicedListing:
        return SlicedListing(lambda: chain.from_iterable(map(self.ledger.store.list, prefixes)), every)

    def _resume_deliveries(self) -> None:
        """Name the webhooks that are due to the couriers, and note those of which Redis doesn't know."""
        self._name_due()
        for entries in self._outbox.slices(_SECONDS):
            ids = [entry.key.removeprefix(object_keys.OUTBOX) for entry in entries]
            unknown = set(self.ledger.redis.due_deliveries.unknown_among(ids))
            unnoted = [entry for entry, id in zip(entries, ids, strict=True) if id in unknown]
            self._attempt_all(unnoted, self._note_delivery)
        self._name_due()

    def _name_due(self) -> None:
        ledger = self.ledger
        seconds = longest_try(ledger.settings)
        for delivery in ledger.redis.due_deliveries.claim(ledger.now(), _DUE_AT_ONCE, seconds):
            ledger.queue.deliver(delivery)

    def _note_delivery(self, entry: Entry) -> None:
        ledger, id = self.ledger, entry.key.removeprefix(object_keys.OUTBOX)
        owed = ledger.delivery(id)
        if owed and owed.status == "owed":
            ledger.redis.due_deliveries.note(id, owed.next_at)
        else:
            ledger.queue.deliver(id)

    def _advance_open_jobs(self) -> None:
        for entries in self._open.slices(2 * _SECONDS):
            self._advance_all(entries, lambda standing: not standing.waiting)
            self._name_due()
        self._send_missing_messages()
        if not self._open.at_end:
            return  # what may be lost goes before what only waits
        self.ledger.redis.epoch.begin()
        for entries in self._sweep.slices(_SECONDS):
            self._advance_all(entries, lambda standing: standing.waiting)

    def _send_missing_messages(self) -> None:
        """Send as many messages as there are turns, or as are read until the next round.

        What a worker takes at this moment seems to miss, too: only what missed in the last round as well is sent.
        """
        for queue in READ_QUEUES:
            missing, job = self.ledger.redis.turns.messages_missing(queue, _MESSAGES_AT_ONCE)
            with suppress(QueueUnavailable):
                for _ in range(min(missing, self._missing[queue])):
                    self.ledger.queue.enqueue_read(job, queue)
            self._missing[queue] = missing

    def _advance_all(self, entries: list[Entry], concerns: Callable[[Standing], bool]) -> None:
        standings = self.ledger.redis.marks.standings(
            [entry.key.removeprefix(object_keys.OPEN) for entry in entries]
        )
        found = {
            entry: standing
            for entry, standing in zip(entries, standings, strict=True)
            if not standing.leased and concerns(standing)
        }
        again = self._attempt_all(list(found), lambda entry: self._advance(entry, found[entry]))
        if jobs := sorted((job for job in again if job), key=lambda job: job.submitted_at):
            self.ledger.line_up(jobs)
            self._missing += Counter(job.priority for job in jobs)

    def _attempt_all(self, entries: list[Entry], advance: Callable[[Entry], T]) -> list[T | None]:
        """Advance several entries at a time: mostly it is the store that is waited for."""
        if len(entries) < _THREADS:
            return [self._attempt(entry, advance) for entry in entries]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="reconcile") as threads:
            return list(threads.map(lambda entry: self._attempt(entry, advance), entries))

    def _attempt(self, entry: Entry, advance: Callable[[Entry], T]) -> T | None:
        """Keep one entry's fault from stopping the others; an unavailable store or Redis stops them all."""
        try:
            return advance(entry)
        except (StoreError, RedisError):
            raise
        except UnreadableRecord as error:
            if entry.key not in self._unreadable:  # once; an update may come to read it
                self._unreadable.add(entry.key)
                log.error("%s waits: %s", entry.key, error)
        except Exception:
            log.exception("reconciling failed for %s", entry.key)
        return None

    def _may_enqueue(self) -> bool:
        """Return whether to enqueue: after Redis was lost, running workers get one lease period to show up."""
        epoch = self.ledger.redis.epoch.current()
        if epoch == "unavailable":
            return False
        if epoch is not None:
            self._missed_since = None
            return True
        self._missed_since = self._missed_since or time.monotonic()
        return time.monotonic() - self._missed_since >= self.ledger.settings.lease

    def _advance(self, entry: Entry, standing: Standing) -> JobRecord | None:
        """Bring one open job or batch forward. Return a job that is to be put in line again."""
        ledger, id = self.ledger, entry.key.removeprefix(object_keys.OPEN)
        record, outcome = ledger.record(id), ledger.outcome(id)
        if record is None and outcome:  # it was accepted and cut since: a backup or its client may restore it
            return None
        if record is None:
            self._wait_for_commit(entry, id)
        elif isinstance(record, Tombstone) and record.why == "abandoned":
            abandon(ledger, id)
        elif isinstance(record, BatchRecord):
            advance_batch(ledger, id)
        elif outcome:
            finish(ledger, id, outcome)
        elif isinstance(record, JobRecord) and self._is_to_wait_again(record, standing):
            return record
        return None

    def _is_to_wait_again(self, job: JobRecord, standing: Standing) -> bool:
        ledger = self.ledger
        if job.refused:
            refuse(ledger, job)
            return False
        if expire(ledger, job, ledger.now()):
            return False
        if standing.started:
            return not self._is_poison(job, standing.started)
        return standing.lost or not standing.enqueued

    def _wait_for_commit(self, entry: Entry, id: str) -> None:
        """Wait: an item is the courier's to submit for as long as its batch is open, be it paused for days."""
        ledger = self.ledger
        batch = ledger.open_marker(id).batch
        if batch and ledger.outcome(batch) is None:
            ledger.queue.advance_batch(batch)
        elif (ledger.now() - entry.modified).total_seconds() > ledger.settings.abandon_after:
            abandon(self.ledger, id)

    def _is_poison(self, job: JobRecord, token: str) -> bool:
        """Count a lease that lapsed while a worker read the job, and end the job if it has been too many.

        Each lease has its token, so none counts twice.
        """
        ledger, marker = self.ledger, self.ledger.open_marker(job.id)
        deaths = (*marker.deaths, *({token} - set(marker.deaths)))
        marker = marker.model_copy(update={"deaths": deaths})
        ledger.store.put(object_keys.open_marker(job.id), marker.dump())
        if len(deaths) < POISON_DEATHS:
            return False
        message = f"{len(deaths)} workers died while reading this image. It is not tried again."
        failure = Failure(code="poison", message=message)
        ended = Outcome(state=JobState.FAILED, failure=failure, attempts=len(deaths), finished_at=ledger.now())
        finish(ledger, job.id, ended)
        return True

    def _resume_erasure(self, entry: Entry) -> None:
        """Erase a job here and now; a batch's many jobs are the courier's."""
        ledger, id = self.ledger, entry.key.removeprefix(object_keys.ERASE)
        erasing = ledger.erasing(id)
        if erasing and erasing.tombstone.of == "batch":
            ledger.queue.erase_batch(id)
        else:
            end_erasure(ledger, id)

    def _list_history(self) -> None:
        """List again what is in the store after Redis was lost.

        If it is lost once more meanwhile, what was listed before is gone, too: every epoch begins anew.
        """
        redis = self.ledger.redis
        epoch = redis.epoch.current()
        if epoch != self._history_epoch:
            self._history, self._history_epoch = self._listing(*_HISTORY), epoch
        if epoch is None or epoch == "unavailable" or redis.listings.is_complete():
            return
        for entries in self._history.slices(_SECONDS):
            self._attempt_all(entries, self._list)
        if self._history.at_end:
            redis.listings.mark_complete(epoch)

    def _list(self, entry: Entry) -> None:
        """List what can be listed of a job, a batch or a delivery: that a job is damaged is shown in its place."""
        ledger, listings = self.ledger, self.ledger.redis.listings
        if id := object_keys.id_of_record(entry.key):
            record = ledger.if_readable(ledger.record, id) or damaged_job(ledger, id, entry.modified, tenant="")
            outcome = ledger.if_readable(ledger.outcome, id)
            if isinstance(record, JobRecord) and outcome:
                listings.job_ended(record.tenant, id, record.submitted_at, outcome.state, must=True)
            elif isinstance(record, JobRecord):
                listings.add_job(record.tenant, id, record.submitted_at, must=True)
            elif isinstance(record, BatchRecord):
                listings.add_batch(record.tenant, id, record.submitted_at, must=True)
        elif entry.key.startswith(object_keys.JOBS):
            return
        elif found := ledger.delivery(entry.key.rpartition("/")[2]):
            listings.add_delivery(found.tenant, found.id, found.created_at, must=True)

    def _drop_uploads(self) -> None:
        """Delete old uploads that no open batch, be it large or paused, is waiting to submit."""
        store, now = self.ledger.store, self.ledger.now()
        if store.clock_fault():
            return
        longest = self.ledger.settings.upload_ttl
        uploads = list(store.list(object_keys.UPLOADS))
        old = [upload.key for upload in uploads if (now - upload.modified).total_seconds() > longest]
        for key in set(old) - set(awaited_uploads(self.ledger) if old else ()):
            store.delete(key)
        for marker in list(store.list(object_keys.USED_UPLOADS)):
            if (now - marker.modified).total_seconds() > longest:
                store.delete(marker.key)
