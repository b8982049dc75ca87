"""Waiting for a job's end without holding a thread."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from emx_shared.ledger.records import Outcome
from emx_shared.redis_state import NEWS_CHANNEL

_LOOK_AGAIN = 1.0
"""Seconds after which the store is asked anyway: what Redis announces are hints."""

_UNREAD = 1000


class Waiting:
    """One subscription for all who wait in this gateway."""

    def __init__(self, url: str, outcome: Callable[[str], Outcome | None]) -> None:
        self._redis: Any = redis.asyncio.Redis.from_url(url, decode_responses=True, socket_connect_timeout=2)
        self._outcome = outcome
        self._waiters: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._hearing_all: set[asyncio.Queue[str]] = set()

    async def until_ended(self, job: str, seconds: float) -> Outcome | None:
        """The job's outcome, or None if it hasn't one after ``seconds``."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + seconds
        with self.hearing(job) as heard:
            while True:
                outcome = await run_in_threadpool(self._outcome, job)
                left = give_up - loop.time()
                if outcome or left <= 0:
                    return outcome
                await pause(heard, min(left, _LOOK_AGAIN))

    @contextlib.contextmanager
    def hearing(self, job: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever something is heard of the job."""
        event = asyncio.Event()
        self._waiters[job].add(event)
        try:
            yield event
        finally:
            self._waiters[job].discard(event)
            if not self._waiters[job]:
                del self._waiters[job]

    @contextlib.contextmanager
    def hearing_all(self) -> Iterator["asyncio.Queue[str]"]:
        """A queue of the ids of all jobs and batches that end from now on, whosever they are."""
        queue = asyncio.Queue[str](_UNREAD)
        self._hearing_all.add(queue)
        try:
            yield queue
        finally:
            self._hearing_all.discard(queue)

    async def listen(self) -> None:
        """Run for the gateway's whole life; outlives Redis."""
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(NEWS_CHANNEL)
                    async for message in channel.listen():
                        if message["type"] == "message":
                            self._wake(*message["data"].split())
            except (RedisError, OSError):
                await asyncio.sleep(1)

    def _wake(self, job: str, what: str) -> None:
        if what not in ("running", "text"):
            for queue in self._hearing_all:
                with contextlib.suppress(asyncio.QueueFull):  # who doesn't read misses something
                    queue.put_nowait(job)
        for event in self._waiters.get(job, ()):
            event.set()


async def pause(heard: asyncio.Event, seconds: float) -> None:
    """Until something is heard, or for so long."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(heard.wait(), seconds)
    heard.clear()
