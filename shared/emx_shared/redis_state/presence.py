"""Presence: which workers and couriers are alive and able to work."""

from typing import Literal

from emx_shared.redis_state.redis_connection import RedisConnection


class Presence:
    """Signs of life of one kind of process, which lapse by themselves."""

    def __init__(self, connection: RedisConnection, kind: Literal["worker", "courier"]) -> None:
        self._redis, self._kind = connection, kind

    def announce(self, name: str, seconds: int) -> None:
        """Show that this process is alive, for so many seconds."""
        self._redis.attempt(lambda: self._redis.client.set(f"{self._kind}:{name}", 1, ex=seconds), None)

    def count(self) -> int:
        """Return how many of these processes are alive; 0 while Redis is unavailable."""
        alive = self._redis.client.scan_iter(f"{self._kind}:*", count=1000)
        return self._redis.attempt(lambda: sum(1 for _ in alive), 0)
