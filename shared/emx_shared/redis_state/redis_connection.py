"""The connection to Redis that all concerns share, and how they bear its absence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import redis
from redis.exceptions import RedisError

_SCRIPTS = Path(__file__).parent / "scripts"
T = TypeVar("T")


class RedisConnection:
    """A pool of connections to one Redis server, with its registered scripts.

    Attributes:
        client: the redis-py client; its methods raise RedisError.
    """

    def __init__(self, url: str) -> None:
        self.client: Any = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=5, socket_connect_timeout=2, health_check_interval=30
        )

    def script(self, name: str) -> Any:
        """Register ``scripts/NAME.lua`` and return what calls it."""
        return self.client.register_script((_SCRIPTS / f"{name}.lua").read_text(encoding="utf-8"))

    def attempt(self, operation: Callable[[], T], otherwise: T) -> T:
        """Run an operation; return ``otherwise`` while Redis is unavailable."""
        try:
            return operation()
        except RedisError:
            return otherwise

    def flagged(self, flag: str, jobs: list[str]) -> set[str]:
        """Return those of ``jobs`` for which the key ``FLAG:JOB`` exists; none while Redis is unavailable."""
        if not jobs:
            return set()
        found = self.attempt(lambda: self.client.mget([f"{flag}:{job}" for job in jobs]), [None] * len(jobs))
        return {job for job, value in zip(jobs, found, strict=True) if value}

    def now(self) -> float:
        """Return Redis's clock, the one that all processes share, in seconds of Unix time. Raises RedisError."""
        seconds, microseconds = self.client.time()
        return float(seconds) + float(microseconds) / 1e6
