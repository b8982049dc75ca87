"""Waiting for a job's end, or for news of it, without holding a thread."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from emx_gateway.http.stopping import Stopping
from emx_shared.ledger.records import Outcome
from emx_shared.redis_state import NEWS_CHANNEL

_LOOK_AGAIN = 1.0
"""Seconds after which the store is asked anyway: what Redis publishes are hints."""

_UNREAD = 1000
"""Ids that are kept for a subscriber who doesn't read them; more are dropped."""


class JobUpdates:
    """One subscription to Redis for everyone who waits in this gateway."""

    def __init__(self, url: str, outcome: Callable[[str], Outcome | None], stopping: Stopping) -> None:
        """Connect lazily to Redis.

        Args:
            url: of Redis.
            outcome: reads how a job ended.
            stopping: whether nobody should be kept waiting, as this server stops.
        """
        self._redis: Any = redis.asyncio.Redis.from_url(url, decode_responses=True, socket_connect_timeout=2)
        self._outcome, self.stopping = outcome, stopping
        self._subscribers: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._subscribers_to_all: set[asyncio.Queue[str]] = set()

    async def until_ended(self, job: str, seconds: float) -> Outcome | None:
        """Return the job's outcome as soon as it has one; None if it has none after ``seconds``, or at a stop."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + seconds
        with self.subscribe(job) as news:
            while True:
                outcome = await run_in_threadpool(self._outcome, job)
                left = give_up - loop.time()
                if outcome or left <= 0 or self.stopping:
                    return outcome
                await pause(news, min(left, _LOOK_AGAIN))

    @contextlib.contextmanager
    def subscribe(self, job: str) -> Iterator[asyncio.Event]:
        """Provide an event that is set whenever there is news of the job."""
        event = asyncio.Event()
        self._subscribers[job].add(event)
        try:
            yield event
        finally:
            self._subscribers[job].discard(event)
            if not self._subscribers[job]:
                del self._subscribers[job]

    @contextlib.contextmanager
    def subscribe_to_all(self) -> Iterator["asyncio.Queue[str]"]:
        """Provide a queue of the ids of all jobs and batches that end from now on, of any tenant."""
        queue = asyncio.Queue[str](_UNREAD)
        self._subscribers_to_all.add(queue)
        try:
            yield queue
        finally:
            self._subscribers_to_all.discard(queue)

    async def listen(self) -> None:
        """Receive news for the gateway's whole life, across losses of Redis."""
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(NEWS_CHANNEL)
                    async for message in channel.listen():
                        if message["type"] == "message":
                            self._publish(*message["data"].split())
            except (RedisError, OSError):
                await asyncio.sleep(1)

    def _publish(self, job: str, what: str) -> None:
        if what not in ("running", "text"):
            for queue in self._subscribers_to_all:
                with contextlib.suppress(asyncio.QueueFull):  # who doesn't read misses something
                    queue.put_nowait(job)
        for event in self._subscribers.get(job, ()):
            event.set()


async def pause(news: asyncio.Event, seconds: float) -> None:
    """Wait for news, at most so long."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(news.wait(), seconds)
    news.clear()
