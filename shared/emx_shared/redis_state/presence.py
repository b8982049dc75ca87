"""Presence: which workers and couriers are alive and able to work."""

from typing import Literal

from emx_shared.redis_state.redis_connection import RedisConnection


class Presence:
    """Signs of life of one kind of process, which lapse by themselves."""

    def __init__(self, connection: RedisConnection, kind: Literal["worker", "courier"]) -> None:
        self._redis, self._keys = connection, [f"alive:{kind}"]
        self._announce = connection.script("announce")
        self._count = connection.script("count_alive")

    def announce(self, name: str, seconds: int) -> None:
        """Show that this process is alive, for so many seconds."""
        self._redis.attempt(lambda: self._announce(keys=self._keys, args=[name, seconds]), None)

    def count(self) -> int:
        """Return how many of these processes are alive; 0 while Redis is unavailable."""
        return int(self._redis.attempt(lambda: self._count(keys=self._keys), 0))
