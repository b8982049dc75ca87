"""Marks: how far each open job has come, as far as Redis remembers."""

from dataclasses import dataclass
from datetime import UTC, datetime

from emx_shared.redis_state.redis_connection import RedisConnection

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
        enqueued: whether a message was sent for it.
        lost: it was enqueued, and its message can't be there any more: either a job of the same queue and tenant
            that was enqueued well after it has started, or the queue is empty and nobody has taken its lease.
    """

    leased: bool
    started: str | None
    enqueued: bool
    lost: bool

    @property
    def waiting(self) -> bool:
        """Whether its message still waits in the broker."""
        return self.enqueued and not self.started and not self.lost


class JobMarks:
    """When each job was enqueued, started and ended. Setting a mark does nothing while Redis is unavailable."""

    def __init__(self, connection: RedisConnection, lease: float, overtaken_after: float) -> None:
        """Set the lease's length and the time after which an overtaken job counts as lost, both in seconds."""
        self._redis = connection
        self._lease, self._overtaken_after = lease, overtaken_after
        self._mark_enqueued = connection.script("mark_enqueued")
        self._raise_newest_started = connection.script("raise_newest_started")
        self._mark_ended = connection.script("mark_ended")

    def mark_enqueued(self, job: str, queue: str, tenant: str) -> None:
        """Note that a message was sent for the job."""
        args = [queue, tenant, _LIFETIME]
        self._redis.attempt(lambda: self._mark_enqueued(keys=[f"enqueued:{job}"], args=args), None)

    def is_enqueued(self, job: str) -> bool:
        """Return whether a message was sent for the job."""
        return bool(self._redis.attempt(lambda: self._redis.client.exists(f"enqueued:{job}"), 0))

    def mark_started(self, job: str, token: str) -> None:
        """Note that the worker with this token has started the job, and publish it."""

        def mark() -> None:
            client = self._redis.client
            client.set(f"started:{job}", token, ex=_LIFETIME)
            client.set(f"begun:{job}", self._redis.now(), ex=_LIFETIME)
            client.publish(NEWS_CHANNEL, f"{job} running")
            if enqueued := client.get(f"enqueued:{job}"):
                at, queue, tenant = enqueued.split()
                self._raise_newest_started(keys=[f"newest:{queue}:{tenant}"], args=[at])

        self._redis.attempt(mark, None)

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

    def standing(self, job: str) -> Standing:
        """Return how the job stands.

        Raises:
            RedisError: without Redis nothing can be said about it.
        """
        names = (f"lease:{job}", f"started:{job}", f"enqueued:{job}")
        leased, started, enqueued = self._redis.client.mget(*names)
        lost = bool(enqueued) and not started and self._is_lost(*enqueued.split())
        return Standing(bool(leased), started, bool(enqueued), lost)

    def _is_lost(self, enqueued_at: str, queue: str, tenant: str) -> bool:
        """Tell whether a message is gone: a worker may die between taking it and taking the lease.

        Where the queue is empty, the message was taken; a living worker shows that within two lease periods.
        """
        newest = float(self._redis.client.get(f"newest:{queue}:{tenant}") or 0)
        if newest > float(enqueued_at) + self._overtaken_after:
            return True
        waited = self._redis.now() - float(enqueued_at)
        return waited > 2 * self._lease and self._redis.client.llen(queue) == 0
