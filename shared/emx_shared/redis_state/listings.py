"""Listings: what a tenant has, newest first. They are rebuilt from the store after Redis lost them."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from redis.exceptions import RedisError

from emx_shared.contracts.states import JobState
from emx_shared.redis_state.redis_connection import RedisConnection

Place = tuple[str, str]
"""An id, and the cursor after which the next page starts."""

_ENDED = tuple(state for state in JobState if state.terminal)


class Listings:
    """For each tenant its jobs, batches and webhook deliveries, by time.

    Removing does nothing while Redis is unavailable, and neither does adding, unless it ``must``: then, as reading
    does, it raises RedisError.
    """

    def __init__(self, connection: RedisConnection) -> None:
        self._redis = connection
        self._list_job = connection.script("list_job")
        self._mark_listed = connection.script("mark_listed")

    def add_job(self, tenant: str, job: str, at: datetime, must: bool = False, together: Any = None) -> None:
        """List a job that was submitted at this time, as open unless it is listed as ended.

        ``together`` is a pipeline that does it.
        """
        keys = [_jobs(tenant), _jobs(tenant, JobState.QUEUED), "tenants", *(_jobs(tenant, end) for end in _ENDED)]
        self._write(lambda: self._list_job(keys=keys, args=[job, _score(at), tenant], client=together), must)

    def job_started(self, tenant: str, job: str, at: datetime) -> None:
        """List a job, which was submitted at this time, among those that are being read."""
        self._write(lambda: self._redis.client.zadd(_jobs(tenant, JobState.RUNNING), {job: _score(at)}), False)

    def job_ended(self, tenant: str, job: str, at: datetime, state: JobState, must: bool = False) -> None:
        """List a job, which was submitted at this time, among those that ended in a state."""

        def move() -> None:
            together = self._redis.client.pipeline(transaction=True)
            together.zadd(_jobs(tenant), {job: _score(at)})
            together.zadd(_jobs(tenant, state), {job: _score(at)})
            together.zrem(_jobs(tenant, JobState.QUEUED), job)
            together.zrem(_jobs(tenant, JobState.RUNNING), job)
            together.sadd("tenants", tenant).execute()

        self._write(move, must)

    def add_batch(self, tenant: str, batch: str, at: datetime, must: bool = False) -> None:
        """List a batch that was submitted at this time."""
        self._write(lambda: self._redis.client.zadd(f"batches:{tenant}", {batch: _score(at)}), must)

    def add_delivery(self, tenant: str, delivery: str, at: datetime, must: bool = False) -> None:
        """List a webhook delivery that was created at this time."""
        self._write(lambda: self._redis.client.zadd(f"deliveries:{tenant}", {delivery: _score(at)}), must)

    def remove_job(self, tenant: str, job: str) -> None:
        """Drop an erased job from its tenant's lists."""

        def remove() -> None:
            together = self._redis.client.pipeline(transaction=True)
            for state in (None, *JobState):
                together.zrem(_jobs(tenant, state), job)
            together.execute()

        self._redis.attempt(remove, None)

    def remove_batch(self, tenant: str, batch: str) -> None:
        """Drop an erased batch from its tenant's list."""
        self._redis.attempt(lambda: self._redis.client.zrem(f"batches:{tenant}", batch), None)

    def jobs(self, tenant: str, after: str | None, count: int, state: JobState | None = None) -> list[Place]:
        """Return up to ``count`` jobs, newest first, after a cursor.

        With a state, hardly any others: one listed as running may have lost its worker, one as queued be running.
        """
        return self._page(_jobs(tenant, state), after, count)

    def batches(self, tenant: str, after: str | None, count: int) -> list[Place]:
        """Return up to ``count`` batches, newest first, after a cursor."""
        return self._page(f"batches:{tenant}", after, count)

    def deliveries(self, tenant: str, after: str | None, count: int) -> list[Place]:
        """Return up to ``count`` deliveries, newest first, after a cursor."""
        return self._page(f"deliveries:{tenant}", after, count)

    def tenants(self) -> list[str]:
        """Return the tenants that have jobs. Raises RedisError."""
        return sorted(self._redis.client.smembers("tenants"))

    def oldest_jobs(self, tenant: str, after: str | None, until: datetime, count: int) -> list[tuple[str, str]]:
        """Return jobs that were submitted before a time, oldest first.

        Args:
            tenant: whose.
            after: the place of the last one that is known; None for the first.
            until: the time.
            count: most of them.

        Returns:
            Their ids and places.

        Raises:
            RedisError: Redis is unavailable.
        """
        begin, end = f"({after}" if after else "-inf", int(until.timestamp() * 1e6)
        found = self._redis.client.zrangebyscore(_jobs(tenant), begin, end, 0, count, withscores=True)
        return [(id, str(int(score))) for id, score in found]

    def inputs_dropped_until(self, tenant: str) -> str | None:
        """Return the place of the last job whose image retention has deleted. Raises RedisError."""
        at: str | None = self._redis.client.get(f"retention:{tenant}")
        return at

    def note_inputs_dropped(self, tenant: str, at: str) -> None:
        """Note that images are deleted up to this place; if that is lost, it is merely done again."""
        self._redis.attempt(lambda: self._redis.client.set(f"retention:{tenant}", at), None)

    def is_complete(self) -> bool:
        """Return whether everything in the store is listed; False while that is being done after a loss."""
        return bool(self._redis.attempt(lambda: self._redis.client.exists("emx:listed"), 0))

    def mark_complete(self, epoch: str) -> None:
        """Note that everything in the store was listed since an epoch began; nothing is noted in another epoch."""
        self._redis.attempt(lambda: self._mark_listed(keys=["emx:epoch", "emx:listed"], args=[epoch]), None)

    def _write(self, write: Callable[[], Any], must: bool) -> None:
        try:
            write()
        except RedisError:
            if must:
                raise

    def _page(self, key: str, after: str | None, count: int) -> list[Place]:
        last = "+inf"
        skipped: set[str] = set()
        if after is not None:
            last, _, listed = after.partition("-")
            # Entries of the same microsecond are told apart by their ids, in the order in which Redis has them.
            same = self._redis.client.zrevrangebyscore(key, last, last)
            skipped = {other for other in same if other >= listed}
        found = self._redis.client.zrevrangebyscore(key, last, "-inf", 0, count + len(skipped), withscores=True)
        return [(id, f"{int(score)}-{id}") for id, score in found if id not in skipped][:count]


def _jobs(tenant: str, state: JobState | None = None) -> str:
    """Return the key of a tenant's jobs in a state; as queued count all that haven't ended."""
    return f"jobs:{tenant}" if state is None else f"{state}-jobs:{tenant}"


def _score(at: datetime) -> int:
    return int(at.timestamp() * 1e6)
