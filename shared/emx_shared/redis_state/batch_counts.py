"""Counts: how many items of a batch have ended, by state. The store's done-markers are the truth."""

import math

from redis.exceptions import RedisError

from emx_shared.redis_state.redis_connection import RedisConnection

_LIFETIME = 60
"""Seconds after which a batch is counted anew from the store, at most."""

_SHORTEST = 5

_SHARE = 0.05
"""Of the time may be spent on that."""


class BatchCounts:
    """A cache of counted done-markers, kept current as items end."""

    def __init__(self, connection: RedisConnection) -> None:
        self._redis = connection
        self._count_ended_item = connection.script("count_ended_item")

    def get(self, batch: str) -> dict[str, int] | None:
        """Return how many items have ended, by state; None if they must be counted from the store."""
        found: dict[str, str] = self._redis.attempt(lambda: self._redis.client.hgetall(f"batch:{batch}"), {})
        return {state: int(n) for state, n in found.items()} if found else None

    def put(self, batch: str, counts: dict[str, int], seconds: float) -> None:
        """Keep counts that were made from the store in so many seconds: the longer that took, the longer."""
        lifetime = min(max(math.ceil(seconds / _SHARE), _SHORTEST), _LIFETIME)

        def keep() -> None:
            together = self._redis.client.pipeline(transaction=True)
            together.hset(f"batch:{batch}", mapping={"cancelled": 0, **counts})  # a hash can't be empty
            together.expire(f"batch:{batch}", lifetime).execute()

        self._redis.attempt(keep, None)

    def item_ended(self, batch: str, state: str) -> None:
        """Count one more item that ended in this state. If Redis is full, what it has counted is forgotten."""
        try:
            self._count_ended_item(keys=[f"batch:{batch}"], args=[state])
        except RedisError:
            self._redis.attempt(lambda: self._redis.client.delete(f"batch:{batch}"), None)
