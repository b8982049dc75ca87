"""What Redis knows of jobs: leases, marks and hints. All of it may vanish at any moment."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import redis
from redis.exceptions import RedisError

DONE_CHANNEL = "emx:done"
"""Published on: ``JOB STATE`` whenever a job ends."""

_MARK_TTL = 7 * 24 * 3600
_CANCEL_TTL = 3600
_EXTEND = """
local held = redis.call('get', KEYS[1])
if held == ARGV[1] then redis.call('pexpire', KEYS[1], ARGV[2]) return 1 end
if not held then redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2]) return 1 end
return 0
"""
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
_RAISE = """
local newest = tonumber(redis.call('get', KEYS[1]) or '0')
if tonumber(ARGV[1]) > newest then redis.call('set', KEYS[1], ARGV[1]) end
"""
T = TypeVar("T")


@dataclass(frozen=True)
class Standing:
    """Redis's view of one open job.

    Attributes:
        started: the token of the last worker to begin it.
        lost: it was enqueued, and its message can't be there any more: either a job of the same queue that was
            enqueued well after it has started, or the queue is empty and nobody has taken its lease.
    """

    leased: bool
    started: str | None
    enqueued: bool
    lost: bool

    @property
    def waiting(self) -> bool:
        return self.enqueued and not self.started and not self.lost


class Index:
    """Reads and marks answer as if nothing were known when Redis is away; only taking a lease raises."""

    def __init__(self, url: str, lease: float = 15.0, overtaken_after: float = 60.0) -> None:
        self.redis: Any = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=5, socket_connect_timeout=2, health_check_interval=30
        )
        self._lease_ms = int(lease * 1000)
        self._overtaken_after = overtaken_after
        self._extend = self.redis.register_script(_EXTEND)
        self._release = self.redis.register_script(_RELEASE)
        self._raise = self.redis.register_script(_RAISE)

    def _try(self, operation: Callable[[], T], otherwise: T) -> T:
        try:
            return operation()
        except RedisError:
            return otherwise

    def ping(self) -> bool:
        return bool(self._try(self.redis.ping, False))

    # Leases

    def take_lease(self, job: str, token: str) -> bool:
        """Raises RedisError."""
        return bool(self.redis.set(f"lease:{job}", token, nx=True, px=self._lease_ms))

    def extend_lease(self, job: str, token: str) -> bool:
        """Renew it, or make it anew if Redis forgot it. False: somebody else holds it."""
        return bool(self._try(lambda: self._extend(keys=[f"lease:{job}"], args=[token, self._lease_ms]), 1))

    def release_lease(self, job: str, token: str) -> None:
        self._try(lambda: self._release(keys=[f"lease:{job}"], args=[token]), None)

    def leased(self, job: str) -> bool:
        return bool(self._try(lambda: self.redis.exists(f"lease:{job}"), 0))

    # Marks

    def mark_enqueued(self, job: str, queue: str) -> None:
        self._try(lambda: self.redis.set(f"enqueued:{job}", f"{self._now():.3f} {queue}", ex=_MARK_TTL), None)

    def enqueued(self, job: str) -> bool:
        return bool(self._try(lambda: self.redis.exists(f"enqueued:{job}"), 0))

    def mark_started(self, job: str, queue: str, token: str) -> None:
        def mark() -> None:
            self.redis.set(f"started:{job}", token, ex=_MARK_TTL)
            if enqueued := self.redis.get(f"enqueued:{job}"):
                self._raise(keys=[f"newest:{queue}"], args=[enqueued.split()[0]])

        self._try(mark, None)

    def forget_start(self, job: str) -> None:
        self._try(lambda: self.redis.delete(f"started:{job}"), None)

    def standing(self, job: str) -> Standing:
        """Raises RedisError: without Redis nothing can be said about a job's standing."""
        leased, started, enqueued = self.redis.mget(f"lease:{job}", f"started:{job}", f"enqueued:{job}")
        lost = bool(enqueued) and not started and self._lost(*enqueued.split())
        return Standing(bool(leased), started, bool(enqueued), lost)

    def _lost(self, enqueued_at: str, queue: str) -> bool:
        """A worker may die between taking a message from the broker and taking the lease.

        Where the queue is empty, the message was taken; a living worker shows that within two lease periods.
        """
        newest = float(self.redis.get(f"newest:{queue}") or 0)
        if newest > float(enqueued_at) + self._overtaken_after:
            return True
        waited = self._now() - float(enqueued_at)
        return waited > 2 * self._lease_ms / 1000 and self.redis.llen(queue) == 0

    def _now(self) -> float:
        """Redis's clock, the one that all processes share, in seconds of Unix time."""
        seconds, microseconds = self.redis.time()
        return float(seconds) + float(microseconds) / 1e6

    # Hints

    def ask_to_cancel(self, job: str) -> None:
        self._try(lambda: self.redis.set(f"cancel:{job}", 1, ex=_CANCEL_TTL), None)

    def asked_to_cancel(self, jobs: list[str]) -> set[str]:
        if not jobs:
            return set()
        found = self._try(lambda: self.redis.mget([f"cancel:{job}" for job in jobs]), [None] * len(jobs))
        return {job for job, flag in zip(jobs, found, strict=True) if flag}

    def ended(self, job: str, state: str) -> None:
        def announce() -> None:
            self.redis.delete(f"enqueued:{job}", f"started:{job}")
            self.redis.publish(DONE_CHANNEL, f"{job} {state}")

        self._try(announce, None)

    # Epoch

    def epoch(self) -> str | Literal["away"] | None:
        """None: Redis is there but has lost its memory (or is new)."""
        try:
            found = self.redis.get("emx:epoch")
            return str(found) if found else None
        except RedisError:
            return "away"

    def begin_epoch(self) -> None:
        self._try(lambda: self.redis.set("emx:epoch", uuid.uuid4().hex, nx=True), None)

    # Workers

    def worker_alive(self, worker: str, seconds: int) -> None:
        self._try(lambda: self.redis.set(f"worker:{worker}", 1, ex=seconds), None)

    def workers(self) -> int:
        """How many workers with a loaded model have been heard of lately."""
        return self._try(lambda: sum(1 for _ in self.redis.scan_iter("worker:*", count=1000)), 0)

    def queue_depths(self, queues: tuple[str, ...]) -> dict[str, int]:
        return self._try(lambda: {queue: int(self.redis.llen(queue)) for queue in queues}, {})
