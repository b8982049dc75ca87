"""A breaker: while a server hangs, its callers don't each wait for it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import ConnectionError as RedisUnreachable
from redis.exceptions import TimeoutError as RedisTimeout

_PAUSE = 1.0
"""Seconds without a call after one that timed out; then a single call tries whether the server answers again."""


class CircuitBreaker:
    """Lets no call through for a second after one that timed out. Any number of threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open_until: float | None = None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Guard one call. Raises redis's ConnectionError at once while the server is taken to hang."""
        with self._lock:
            if self._open_until is not None and time.monotonic() < self._open_until:
                raise RedisUnreachable("Redis didn't answer a moment ago.")
            if self._open_until is not None:
                self._open_until = time.monotonic() + _PAUSE  # the others wait for how this call goes
        hangs = False
        try:
            yield
        except Exception as error:
            hangs = _timed_out(error)
            raise
        finally:
            self._open_until = time.monotonic() + _PAUSE if hangs else None


def _timed_out(error: BaseException | None) -> bool:
    """Return whether a time-out is the cause of an error, such as one of the broker's client."""
    while error is not None:
        if isinstance(error, RedisTimeout | TimeoutError):
            return True
        error = error.__cause__ or error.__context__
    return False
