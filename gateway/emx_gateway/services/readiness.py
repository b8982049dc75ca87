"""Probes: answered by threads of their own, however busy or hung the others are."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from emx_shared.ledger import Ledger
from emx_shared.messaging import COURIER_QUEUE, READ_QUEUES
from emx_shared.store import StoreError

_TIMEOUT = 2.0
"""Seconds after which what is probed counts as unavailable."""

_THREADS = 8
T = TypeVar("T")


class Probes:
    """Looks at Redis, the store, workers and couriers, each for at most two seconds.

    A probe that hangs keeps its thread until it returns. While none is free, everything counts as unavailable.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="probe")

    async def readiness(self) -> dict[str, bool]:
        """Return what a report needs, and whether it is available."""
        redis = self._ledger.redis
        checks = {
            "redis": self._probe(redis.ping, False),
            "store": self._probe(self._store_answers, False),
            "worker": self._probe(lambda: redis.workers.count() > 0, False),
            "courier": self._probe(lambda: redis.couriers.count() > 0, False),
        }
        return dict(zip(checks, await asyncio.gather(*checks.values()), strict=True))

    async def redis_figures(self) -> tuple[bool, int, dict[str, int]]:
        """Return whether Redis answers, how many workers are alive, and the messages in each queue."""
        redis, queues = self._ledger.redis, (*READ_QUEUES, COURIER_QUEUE)
        return await asyncio.gather(
            self._probe(redis.ping, False),
            self._probe(redis.workers.count, 0),
            self._probe(lambda: redis.turns.queue_depths(queues), dict[str, int]()),
        )

    async def _probe(self, probe: Callable[[], T], otherwise: T) -> T:
        asked: Awaitable[T] = asyncio.get_running_loop().run_in_executor(self._threads, probe)
        try:
            return await asyncio.wait_for(asked, _TIMEOUT)
        except TimeoutError:
            return otherwise

    def _store_answers(self) -> bool:
        try:
            self._ledger.store.exists("probe/readyz")
        except StoreError:
            return False
        return True
