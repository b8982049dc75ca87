"""Marks: how far each open job has come, as far as Redis remembers."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from emx_shared.redis_state.redis_connection import RedisConnection
from emx_shared.redis_state.turns import line

NEWS_CHANNEL = "emx:news"
"""Published on: ``JOB WHAT`` when a job starts, when it ends, and, while it is watched, when text was written."""

_LIFETIME = 7 * 24 * 3600
"""Seconds that a mark is kept."""


@dataclass(frozen=True)
class Standing:
    """Redis's view of one open job.

    Attributes:
        leased: whether a worker holds its lease.
        started: the token of the last worker to start it.
        enqueued: whether it was put in line.
        lost: it was enqueued two lease periods ago, nobody holds its lease, and its turn was taken: whoever took
            it has died.
    """

    leased: bool
    started: str | None
    enqueued: bool
    lost: bool

    @property
    def waiting(self) -> bool:
        """Whether it waits for its turn, or somebody has just taken that."""
        return self.enqueued and not self.started and not self.lost


class JobMarks:
    """When each job was enqueued, started and ended. Setting a mark does nothing while Redis is unavailable."""

    def __init__(self, connection: RedisConnection, lease: float) -> None:
        """Set the lease's length in seconds."""
        self._redis = connection
        self._lease = lease
        self._mark_enqueued = connection.script("mark_enqueued")
        self._mark_started = connection.script("mark_started")
        self._mark_ended = connection.script("mark_ended")

    def mark_enqueued(self, job: str, queue: str, tenant: str, together: Any) -> None:
        """Have a pipeline note that the job waits."""
        args = [queue, tenant, _LIFETIME]
        self._mark_enqueued(keys=[f"enqueued:{job}"], args=args, client=together)

    def mark_started(self, job: str, token: str) -> None:
        """Note that the worker with this token has started the job, and publish it."""
        keys, args = [f"started:{job}", f"begun:{job}"], [token, job, NEWS_CHANNEL, _LIFETIME]
        self._redis.attempt(lambda: self._mark_started(keys=keys, args=args), None)

    def started_at(self, job: str) -> datetime | None:
        """Return when a worker last started the job, in UTC; None where that is not known."""
        at = self._redis.attempt(lambda: self._redis.client.get(f"begun:{job}"), None)
        return datetime.fromtimestamp(float(at), UTC) if at else None

    def forget_start(self, job: str) -> None:
        """Take back ``mark_started``: the job was handed back unread."""
        self._redis.attempt(lambda: self._redis.client.delete(f"started:{job}"), None)

    def mark_ended(self, job: str, state: str) -> None:
        """Forget an ended job's marks and its place in line, and publish its state."""
        keys = [f"enqueued:{job}", f"started:{job}", f"begun:{job}"]
        self._redis.attempt(lambda: self._mark_ended(keys=keys, args=[job, NEWS_CHANNEL, state]), None)

    def standings(self, jobs: list[str]) -> list[Standing]:
        """Return how each of the jobs stands, in the same order.

        Raises:
            RedisError: without Redis nothing can be said about them.
        """
        if not jobs:
            return []
        asked = self._redis.client.pipeline(transaction=False)
        for mark in ("lease", "started", "enqueued"):
            asked.mget([f"{mark}:{job}" for job in jobs])
        leases, starts, enqueuings = asked.execute()
        unseen = {
            job: _Enqueuing.read(enqueued)
            for job, leased, started, enqueued in zip(jobs, leases, starts, enqueuings, strict=True)
            if enqueued and not leased and not started
        }
        lost = self._lost_among(unseen)
        return [
            Standing(bool(leased), started, bool(enqueued), job in lost)
            for job, leased, started, enqueued in zip(jobs, leases, starts, enqueuings, strict=True)
        ]

    def _lost_among(self, enqueued: dict[str, "_Enqueuing"]) -> set[str]:
        """Return the jobs whose turn is gone: a worker may die between taking it and taking the lease.

        A living worker shows itself within two lease periods.
        """
        before = self._redis.now() - 2 * self._lease
        lines: dict[tuple[str, str], list[str]] = defaultdict(list)
        for job, found in enqueued.items():
            if found.at < before:
                lines[found.queue, found.tenant].append(job)
        asked = self._redis.client.pipeline(transaction=False)
        for (queue, tenant), waiting in lines.items():
            asked.zmscore(line(queue, tenant), waiting)
        lost: set[str] = set()
        for waiting, places in zip(lines.values(), asked.execute(), strict=True):
            lost |= {job for job, place in zip(waiting, places, strict=True) if place is None}
        return lost


@dataclass(frozen=True)
class _Enqueuing:
    """What the mark of an enqueued job says: when that was by Redis's clock, and where."""

    at: float
    queue: str
    tenant: str

    @classmethod
    def read(cls, mark: str) -> "_Enqueuing":
        at, queue, tenant = mark.split()
        return cls(float(at), queue, tenant)
