"""Pace: when the items of a batch that were read last began and ended, to estimate how long the others take."""

from datetime import datetime

from emx_shared.redis_state.redis_connection import RedisConnection

_KEPT = 200
"""Items: several rounds of a worker that reads 32 at a time."""

_LIFETIME = 3600
"""Seconds without any item read after which nothing is known."""


class BatchPace:
    """The last items of each batch that a model has read. Items that failed without it show nothing of it."""

    def __init__(self, connection: RedisConnection) -> None:
        self._redis = connection

    def item_read(self, batch: str, started_at: datetime, finished_at: datetime) -> None:
        """Note when an item was read, by the store's clock."""

        def note() -> None:
            together = self._redis.client.pipeline(transaction=True)
            together.lpush(_key(batch), f"{started_at.timestamp():.3f}:{finished_at.timestamp():.3f}")
            together.ltrim(_key(batch), 0, _KEPT - 1)
            together.expire(_key(batch), _LIFETIME).execute()

        self._redis.attempt(note, None)

    def items_per_second(self, batch: str, now: datetime) -> float | None:
        """Return how many items are read each second; None if nothing is known of it."""
        found: list[str] = self._redis.attempt(lambda: self._redis.client.lrange(_key(batch), 0, -1), [])
        times = [tuple(map(float, item.split(":"))) for item in found]
        if not times:
            return None
        first, last = min(started for started, _ in times), max(finished for _, finished in times)
        idle = now.timestamp() - last
        seconds = last - first if idle <= last - first else now.timestamp() - first  # it has come to a stand
        return len(times) / seconds if seconds > 0 else None

    def forget(self, batch: str) -> None:
        """Begin anew, so that a pause doesn't count as slowness."""
        self._redis.attempt(lambda: self._redis.client.delete(_key(batch)), None)


def _key(batch: str) -> str:
    return f"batch-pace:{batch}"
