"""Due deliveries: which webhooks are owed when, and tries that the store couldn't note.

The outbox is the truth.
"""

from datetime import datetime

from emx_shared.redis_state.redis_connection import RedisConnection

_KEY = "due-deliveries"
_LIFETIME = 24 * 3600
"""Seconds that a try is remembered which the store couldn't note."""


class DueDeliveries:
    """An index of the outbox by time. What Redis doesn't take is noted by the reconciler later."""

    def __init__(self, connection: RedisConnection) -> None:
        self._redis = connection
        self._claim = connection.script("claim_due")
        self._unkept: dict[str, bytes] = {}

    def note(self, delivery: str, at: datetime) -> None:
        """Note when a delivery is to be tried, by the store's clock."""
        self._redis.attempt(lambda: self._redis.client.zadd(_KEY, {delivery: at.timestamp()}), None)

    def forget(self, delivery: str) -> None:
        """Forget a delivery that has ended."""
        self._redis.attempt(lambda: self._redis.client.zrem(_KEY, delivery), None)

    def unknown_among(self, deliveries: list[str]) -> list[str]:
        """Return those that aren't noted. Raises RedisError."""
        found = self._redis.client.zmscore(_KEY, deliveries) if deliveries else []
        return [delivery for delivery, at in zip(deliveries, found, strict=True) if at is None]

    def claim(self, now: datetime, count: int, seconds: float) -> list[str]:
        """Return up to ``count`` deliveries that are due; nobody else gets them for so many seconds.

        Raises RedisError.
        """
        args = [now.timestamp(), now.timestamp() + seconds, count]
        return list(self._claim(keys=[_KEY], args=args))

    def keep_try(self, delivery: str, record: bytes) -> None:
        """Remember a try, in this process where Redis is unavailable, until the store has noted it."""
        if not self._redis.attempt(lambda: self._redis.client.set(_try(delivery), record, ex=_LIFETIME), False):
            self._unkept[delivery] = record

    def last_try(self, delivery: str) -> bytes | None:
        """Return a try that the store hasn't noted."""
        found = self._redis.attempt(lambda: self._redis.client.get(_try(delivery)), None)
        return found.encode() if found else self._unkept.get(delivery)

    def forget_try(self, delivery: str) -> None:
        """Forget a try, which the store has noted."""
        self._unkept.pop(delivery, None)
        self._redis.attempt(lambda: self._redis.client.delete(_try(delivery)), None)


def _try(delivery: str) -> str:
    return f"delivery-try:{delivery}"
