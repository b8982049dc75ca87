"""Workers: which are alive, with a loaded model."""

from emx_shared.redis_state.redis_connection import RedisConnection


class Workers:
    """Signs of life that lapse by themselves."""

    def __init__(self, connection: RedisConnection) -> None:
        self._redis = connection

    def announce(self, worker: str, seconds: int) -> None:
        """Show that this worker is alive, for so many seconds."""
        self._redis.attempt(lambda: self._redis.client.set(f"worker:{worker}", 1, ex=seconds), None)

    def count(self) -> int:
        """Return how many workers are alive; 0 while Redis is unavailable."""
        found = self._redis.attempt(
            lambda: sum(1 for _ in self._redis.client.scan_iter("worker:*", count=1000)), 0
        )
        return int(found)
