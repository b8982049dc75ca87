"""Reconcile: whatever stopped half-way is brought to its end."""

import logging
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice

from redis.exceptions import RedisError

from emx_shared.ledger import object_keys
from emx_shared.ledger.batches.items import awaited_uploads
from emx_shared.ledger.batches.lifecycle import expand
from emx_shared.ledger.jobs.erasure import end_erasure
from emx_shared.ledger.jobs.finish import expire, finish, refuse
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import Delivery, Failure, Outcome, Request
from emx_shared.store import NotFound, StoreError
from emx_shared.store.base import Entry

log = logging.getLogger("emx.ledger")

POISON_DEATHS = 4
"""Lapsed leases before a job is poison: one in company, three alone."""

HISTORY_A_ROUND = 500
"""Objects that one round looks at, in order to list jobs again."""

FULL_SWEEP = 20
"""Every so many rounds the store is asked about each open job, even where Redis says that all is well."""


class Reconciler:
    """Lists ``open/``, ``outbox/`` and ``erase/`` only, so a round costs with what is open, not with history.

    Any number may run at once. It remembers nothing but when it first missed Redis's epoch.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._missed_since: float | None = None
        self._rounds = 0
        self._history: Iterator[Entry] | None = None

    def round(self) -> None:
        """One pass. Raises StoreError when the store is away; then nothing was decided."""
        ledger = self.ledger
        full = self._rounds % FULL_SWEEP == 0
        self._rounds += 1
        for entry in list(ledger.store.list(object_keys.ERASE)):
            self._apart(entry, self._erase)
        if self._may_enqueue():
            for entry in list(ledger.store.list(object_keys.OPEN)):
                self._apart(entry, lambda entry: self._attend(entry, full))
            ledger.redis.epoch.begin()
            self._list_history()
        for entry in list(ledger.store.list(object_keys.OUTBOX)):
            self._apart(entry, self._redeliver)
        if full:
            self._drop_uploads()

    def _apart(self, entry: Entry, attend: Callable[[Entry], object]) -> None:
        """What one entry does wrong is no other's affair; a store or a Redis that is away is everyone's."""
        try:
            attend(entry)
        except (StoreError, RedisError):
            raise
        except Exception:
            log.exception("reconciling stumbled over %s", entry.key)

    def _list_history(self) -> None:
        """After Redis was lost, list again what there is in the store: a few hundred jobs a round."""
        ledger = self.ledger
        if ledger.redis.listings.is_complete():
            self._history = None
            return
        if self._history is None:
            self._history = chain(
                *map(ledger.store.list, (object_keys.JOBS, object_keys.DELIVERIES, object_keys.OUTBOX))
            )
        batch = list(islice(self._history, HISTORY_A_ROUND))
        for entry in batch:
            self._list(entry.key)
        if len(batch) < HISTORY_A_ROUND:
            ledger.redis.listings.mark_complete()

    def _list(self, key: str) -> None:
        ledger = self.ledger
        if job := object_keys.job_of_request(key):
            request = ledger.request(job)
            if request and request.status == "committed":
                add = ledger.redis.listings.add_job if request.kind == "job" else ledger.redis.listings.add_batch
                add(request.tenant, request.id, request.submitted_at)
        elif not key.startswith(object_keys.JOBS) and (found := ledger.delivery(key.rpartition("/")[2])):
            ledger.redis.listings.add_delivery(found.tenant, found.id, found.created_at)

    def _drop_uploads(self) -> None:
        """Those that nobody made a job of in time, and that no batch is going to, be it large or paused."""
        store, now = self.ledger.store, self.ledger.store.now()
        longest = self.ledger.settings.upload_ttl
        old = [
            e.key for e in list(store.list(object_keys.UPLOADS)) if (now - e.modified).total_seconds() > longest
        ]
        for key in set(old) - set(awaited_uploads(self.ledger) if old else ()):
            store.delete(key)

    def _may_enqueue(self) -> bool:
        """After Redis lost its memory, give running workers one lease period to show themselves."""
        epoch = self.ledger.redis.epoch.current()
        if epoch == "away":
            return False
        if epoch is not None:
            self._missed_since = None
            return True
        self._missed_since = self._missed_since or time.monotonic()
        return time.monotonic() - self._missed_since >= self.ledger.settings.lease

    def _attend(self, entry: Entry, full: bool) -> None:
        """Bring one open job forward."""
        ledger, job = self.ledger, entry.key.removeprefix(object_keys.OPEN)
        standing = ledger.redis.marks.standing(job)
        if standing.leased or (standing.waiting and not full):
            return
        request, outcome = ledger.request(job), ledger.outcome(job)
        if request is None:
            self._wait_for_commit(entry, job)
        elif request.status == "abandoned":
            self._abandon(job)
        elif request.kind == "batch":
            expand(ledger, job)
        elif outcome:
            finish(ledger, job, outcome)
        elif request.refused:
            refuse(ledger, request)
        elif expire(ledger, request, ledger.store.now()):
            pass
        elif standing.started:
            self._mourn(request, standing.started)
        elif standing.lost or not standing.enqueued:
            ledger.enqueue(request)

    def _wait_for_commit(self, entry: Entry, job: str) -> None:
        """An item is the courier's to submit for as long as its batch goes on, be it paused for days."""
        ledger = self.ledger
        batch = ledger.open_marker(job).batch
        if batch and ledger.outcome(batch) is None:
            ledger.queue.expand(batch)
        elif (ledger.store.now() - entry.modified).total_seconds() > ledger.settings.abandon_after:
            self._abandon(job)

    def _abandon(self, job: str) -> None:
        """A submission that never committed. The request it might still write is taken from it first."""
        ledger = self.ledger
        tombstone = Request(id=job, status="abandoned", submitted_at=ledger.store.now())
        ledger.store.put_if_absent(object_keys.request(job), tombstone.dump())
        winner = ledger.request(job)
        if winner and winner.status == "abandoned":
            for prefix in (object_keys.inputs(job), object_keys.batch(job)):
                ledger.store.delete_below(prefix)
            ledger.store.delete(object_keys.open_marker(job))

    def _mourn(self, request: Request, token: str) -> None:
        """A worker's lease lapsed with the job in hand. Each death has its token, so none counts twice."""
        ledger, marker = self.ledger, self.ledger.open_marker(request.id)
        deaths = (*marker.deaths, *({token} - set(marker.deaths)))
        ledger.store.put(object_keys.open_marker(request.id), marker.model_copy(update={"deaths": deaths}).dump())
        if len(deaths) < POISON_DEATHS:
            ledger.enqueue(request)
            return
        failure = Failure(
            code="poison",
            message=f"{len(deaths)} workers died while reading this image. It is not tried again.",
        )
        finish(
            ledger,
            request.id,
            Outcome(kind="failure", failure=failure, finished_at=ledger.store.now()),
        )

    def _erase(self, entry: Entry) -> None:
        """A batch's many jobs are the courier's; a single one is done here and now."""
        ledger, job = self.ledger, entry.key.removeprefix(object_keys.ERASE)
        erasing = ledger.erasing(job)
        if erasing and erasing.tombstone.kind == "batch":
            ledger.queue.expand(job)
        else:
            end_erasure(ledger, job)

    def _redeliver(self, entry: Entry) -> None:
        ledger, delivery_id = self.ledger, entry.key.removeprefix(object_keys.OUTBOX)
        try:
            owed = Delivery.model_validate_json(ledger.store.get(entry.key))
        except NotFound:
            return
        if ledger.store.now() >= owed.next_at:
            ledger.queue.deliver(delivery_id)
