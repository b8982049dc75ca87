"""The connection to Redis that all concerns share, and how they bear its absence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisUnreachable
from redis.exceptions import RedisError
from redis.retry import Retry
from typing_extensions import override

from emx_shared.redis_state.circuit_breaker import CircuitBreaker

CONNECT_TIMEOUT, ANSWER_TIMEOUT = 1.0, 1.5
"""Seconds after which Redis counts as unavailable; nothing that it is asked takes it long."""

_SCRIPTS = Path(__file__).parent / "scripts"
T = TypeVar("T")


class _GuardedPipeline(Pipeline):  # type: ignore[misc]
    breaker: CircuitBreaker

    @override
    def execute(self, raise_on_error: bool = True) -> list[Any]:
        with self.breaker.call():
            return list(super().execute(raise_on_error))


class _GuardedRedis(redis.Redis):  # type: ignore[misc]
    breaker: CircuitBreaker

    @override
    def execute_command(self, *args: Any, **options: Any) -> Any:
        with self.breaker.call():
            return super().execute_command(*args, **options)

    @override
    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        found = _GuardedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        found.breaker = self.breaker
        return found


class RedisConnection:
    """A pool of connections to one Redis server, with its registered scripts.

    Attributes:
        client: the redis-py client; its methods raise RedisError.
        breaker: spares callers the wait while Redis hangs, for whoever talks to it in another way, too.
    """

    def __init__(self, url: str) -> None:
        self.breaker = CircuitBreaker()
        self.client: Any = _GuardedRedis.from_url(
            url,
            decode_responses=True,
            socket_timeout=ANSWER_TIMEOUT,
            socket_connect_timeout=CONNECT_TIMEOUT,
            health_check_interval=30,
            retry=Retry(NoBackoff(), 1, (RedisUnreachable,)),  # a connection may have been closed meanwhile
        )
        self.client.breaker = self.breaker

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
