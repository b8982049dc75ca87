"""Listings: what a tenant has, newest first. They are rebuilt from the store after Redis lost them."""

from datetime import datetime

from redis.exceptions import RedisError

from emx_shared.redis_state.redis_connection import RedisConnection

Place = tuple[str, str]
"""An id, and the cursor after which the next page starts."""


class Listings:
    """For each tenant its jobs, batches and webhook deliveries, by time.

    Removing does nothing while Redis is unavailable, and neither does adding, unless it ``must``: then, as reading
    does, it raises RedisError.
    """

    def __init__(self, connection: RedisConnection) -> None:
        self._redis = connection

    def add_job(self, tenant: str, job: str, at: datetime, must: bool = False) -> None:
        """List a job that was submitted at this time."""
        self._add(f"jobs:{tenant}", job, at, must)

    def add_batch(self, tenant: str, batch: str, at: datetime, must: bool = False) -> None:
        """List a batch that was submitted at this time."""
        self._add(f"batches:{tenant}", batch, at, must)

    def add_delivery(self, tenant: str, delivery: str, at: datetime, must: bool = False) -> None:
        """List a webhook delivery that was created at this time."""
        self._add(f"deliveries:{tenant}", delivery, at, must)

    def remove_job(self, tenant: str, job: str) -> None:
        """Drop an erased job from its tenant's list."""
        self._redis.attempt(lambda: self._redis.client.zrem(f"jobs:{tenant}", job), None)

    def remove_batch(self, tenant: str, batch: str) -> None:
        """Drop an erased batch from its tenant's list."""
        self._redis.attempt(lambda: self._redis.client.zrem(f"batches:{tenant}", batch), None)

    def jobs(self, tenant: str, after: str | None, count: int) -> list[Place]:
        """Return up to ``count`` jobs, newest first, after a cursor."""
        return self._page(f"jobs:{tenant}", after, count)

    def batches(self, tenant: str, after: str | None, count: int) -> list[Place]:
        """Return up to ``count`` batches, newest first, after a cursor."""
        return self._page(f"batches:{tenant}", after, count)

    def deliveries(self, tenant: str, after: str | None, count: int) -> list[Place]:
        """Return up to ``count`` deliveries, newest first, after a cursor."""
        return self._page(f"deliveries:{tenant}", after, count)

    def tenants(self) -> list[str]:
        """Return the tenants that have jobs. Raises RedisError."""
        return sorted(key.partition(":")[2] for key in self._redis.client.scan_iter("jobs:*", count=1000))

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
        found = self._redis.client.zrangebyscore(f"jobs:{tenant}", begin, end, 0, count, withscores=True)
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
        return bool(self._redis.attempt(lambda: self._redis.client.exists("emx:history"), 0))

    def mark_complete(self) -> None:
        """Note that everything in the store is listed."""
        self._redis.attempt(lambda: self._redis.client.set("emx:history", 1), None)

    def _add(self, key: str, member: str, at: datetime, must: bool) -> None:
        try:
            self._redis.client.zadd(key, {member: int(at.timestamp() * 1e6)})
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
