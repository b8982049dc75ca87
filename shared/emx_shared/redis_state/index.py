"""What Redis knows of jobs: leases, marks and hints. All of it may vanish at any moment."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import redis
from redis.exceptions import RedisError

NEWS_CHANNEL = "emx:news"
"""Published on: ``JOB WHAT`` when a job begins, when it ends, and, if it is watched, when text was written."""

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
_MARK_ENQUEUED = """
local now = redis.call('time')
local at = string.format('%d.%03d', now[1], math.floor(now[2] / 1000))
redis.call('set', KEYS[1], at .. ' ' .. ARGV[1] .. ' ' .. ARGV[2], 'ex', ARGV[3])
"""
_AWAIT_TURN = """
redis.call('del', KEYS[3])
if redis.call('rpush', KEYS[1], ARGV[1]) == 1 then redis.call('rpush', KEYS[2], ARGV[2]) end
"""
_NEXT_TURN = """
local tenant = redis.call('lpop', KEYS[1])
if not tenant then return nil end
local waiting = 'pending:' .. ARGV[1] .. ':' .. tenant
local job = redis.call('lpop', waiting)
if redis.call('exists', waiting) == 1 then redis.call('rpush', KEYS[1], tenant) end
return job
"""
_ENDED = """
local enqueued = redis.call('get', KEYS[1])
if enqueued and redis.call('exists', KEYS[2]) == 0 then
    local queue, tenant = string.match(enqueued, '%S+ (%S+) (%S+)')
    local waiting = 'pending:' .. queue .. ':' .. tenant
    if redis.call('lrem', waiting, 1, ARGV[1]) == 1 and redis.call('exists', waiting) == 0 then
        redis.call('lrem', 'turns:' .. queue, 1, tenant)
    end
end
redis.call('del', KEYS[1], KEYS[2], KEYS[3])
redis.call('publish', ARGV[2], ARGV[1] .. ' ' .. ARGV[3])
"""
_AHEAD = """
local place = redis.call('lpos', KEYS[1], ARGV[1])
if not place then return nil end
local ahead = place
for _, tenant in ipairs(redis.call('lrange', KEYS[2], 0, -1)) do
    local waiting = 'pending:' .. ARGV[2] .. ':' .. tenant
    if waiting ~= KEYS[1] then ahead = ahead + math.min(redis.call('llen', waiting), place) end
end
return ahead
"""
_COUNT_ITEM = """
if redis.call('exists', KEYS[1]) == 1 then redis.call('hincrby', KEYS[1], ARGV[1], 1) end
"""
_EVENTS_TTL = 3600
_EVENTS_KEPT = 2000
_WATCH_TTL = 15
_COUNTS_TTL = 60
T = TypeVar("T")


@dataclass(frozen=True)
class Standing:
    """Redis's view of one open job.

    Attributes:
        started: the token of the last worker to begin it.
        lost: it was enqueued, and its message can't be there any more: either a job of the same queue and tenant
            that was enqueued well after it has started, or the queue is empty and nobody has taken its lease.
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
        self._mark_enqueued = self.redis.register_script(_MARK_ENQUEUED)
        self._ahead = self.redis.register_script(_AHEAD)
        self._await_turn = self.redis.register_script(_AWAIT_TURN)
        self._next_turn = self.redis.register_script(_NEXT_TURN)
        self._ended = self.redis.register_script(_ENDED)
        self._count_item = self.redis.register_script(_COUNT_ITEM)

    def _try(self, operation: Callable[[], T], otherwise: T) -> T:
        try:
            return operation()
        except RedisError:
            return otherwise

    def ping(self) -> bool:
        return bool(self._try(self.redis.ping, False))

    # Leases

    def take_lease(self, job: str, token: str, seconds: float | None = None) -> bool:
        """``seconds``: how long it lasts, where that isn't the usual. Raises RedisError."""
        lasts = self._lease_ms if seconds is None else int(seconds * 1000)
        return bool(self.redis.set(f"lease:{job}", token, nx=True, px=lasts))

    def extend_lease(self, job: str, token: str) -> bool:
        """Renew it, or make it anew if Redis forgot it. False: somebody else holds it."""
        return bool(self._try(lambda: self._extend(keys=[f"lease:{job}"], args=[token, self._lease_ms]), 1))

    def release_lease(self, job: str, token: str) -> None:
        self._try(lambda: self._release(keys=[f"lease:{job}"], args=[token]), None)

    def leased(self, job: str) -> bool:
        return bool(self._try(lambda: self.redis.exists(f"lease:{job}"), 0))

    def leased_among(self, jobs: list[str]) -> set[str]:
        return self._flagged("lease", jobs)

    # Marks

    def mark_enqueued(self, job: str, queue: str, tenant: str) -> None:
        self._try(lambda: self._mark_enqueued(keys=[f"enqueued:{job}"], args=[queue, tenant, _MARK_TTL]), None)

    def enqueued(self, job: str) -> bool:
        return bool(self._try(lambda: self.redis.exists(f"enqueued:{job}"), 0))

    def mark_started(self, job: str, token: str) -> None:
        def mark() -> None:
            self.redis.set(f"started:{job}", token, ex=_MARK_TTL)
            self.redis.set(f"begun:{job}", self._now(), ex=_MARK_TTL)
            self.redis.publish(NEWS_CHANNEL, f"{job} running")
            if enqueued := self.redis.get(f"enqueued:{job}"):
                at, queue, tenant = enqueued.split()
                self._raise(keys=[f"newest:{queue}:{tenant}"], args=[at])

        self._try(mark, None)

    def begun(self, job: str) -> datetime | None:
        """When a worker began to read it last."""
        at = self._try(lambda: self.redis.get(f"begun:{job}"), None)
        return datetime.fromtimestamp(float(at), UTC) if at else None

    def forget_start(self, job: str) -> None:
        self._try(lambda: self.redis.delete(f"started:{job}"), None)

    def standing(self, job: str) -> Standing:
        """Raises RedisError: without Redis nothing can be said about a job's standing."""
        leased, started, enqueued = self.redis.mget(f"lease:{job}", f"started:{job}", f"enqueued:{job}")
        lost = bool(enqueued) and not started and self._lost(*enqueued.split())
        return Standing(bool(leased), started, bool(enqueued), lost)

    def _lost(self, enqueued_at: str, queue: str, tenant: str) -> bool:
        """A worker may die between taking a message from the broker and taking the lease.

        Where the queue is empty, the message was taken; a living worker shows that within two lease periods.
        """
        newest = float(self.redis.get(f"newest:{queue}:{tenant}") or 0)
        if newest > float(enqueued_at) + self._overtaken_after:
            return True
        waited = self._now() - float(enqueued_at)
        return waited > 2 * self._lease_ms / 1000 and self.redis.llen(queue) == 0

    def _now(self) -> float:
        """Redis's clock, the one that all processes share, in seconds of Unix time."""
        seconds, microseconds = self.redis.time()
        return float(seconds) + float(microseconds) / 1e6

    # Turns: the tenants of a queue are served one job each in turn, whoever floods it

    def await_turn(self, job: str, queue: str, tenant: str) -> None:
        """Nobody has begun the job from now on."""
        keys = [f"pending:{queue}:{tenant}", f"turns:{queue}", f"started:{job}"]
        self._try(lambda: self._await_turn(keys=keys, args=[job, tenant]), None)

    def next_turn(self, queue: str) -> str | None:
        """The job whose turn it is; None if nothing is known to wait."""
        found = self._try(lambda: self._next_turn(keys=[f"turns:{queue}"], args=[queue]), None)
        return None if found is None else str(found)

    def ahead(self, job: str, queue: str, tenant: str) -> int | None:
        """How many jobs of this queue come before this one; None if it doesn't wait, or nothing is known."""

        keys = [f"pending:{queue}:{tenant}", f"turns:{queue}"]
        found = self._try(lambda: self._ahead(keys=keys, args=[job, queue]), None)
        return None if found is None else int(found)

    def crowd(self, queues: tuple[str, ...], tenant: str, queue: str) -> tuple[int, int]:
        """Jobs of a tenant that wait for their turn in any of the queues, and messages in one of them."""

        def count() -> tuple[int, int]:
            asked = self.redis.pipeline(transaction=False)
            for name in queues:
                asked.llen(f"pending:{name}:{tenant}")
            *waiting, messages = asked.llen(queue).execute()
            return sum(waiting), int(messages)

        return self._try(count, (0, 0))

    # Listing: a tenant's jobs by time; made anew from the store when it was lost

    def list_job(self, tenant: str, job: str, at: datetime) -> None:
        self._list(f"jobs:{tenant}", job, at)

    def list_delivery(self, tenant: str, delivery: str, at: datetime) -> None:
        self._list(f"deliveries:{tenant}", delivery, at)

    def _list(self, key: str, member: str, at: datetime) -> None:
        self._try(lambda: self.redis.zadd(key, {member: int(at.timestamp() * 1e6)}), None)

    def unlist_job(self, tenant: str, job: str) -> None:
        """Of an erased job nothing that was told of it stays either."""

        def forget() -> None:
            self.redis.zrem(f"jobs:{tenant}", job)
            self.redis.delete(f"told:{job}")

        self._try(forget, None)

    def listed(self, tenant: str, before: str | None, count: int) -> list[tuple[str, str]]:
        """The newest jobs after a place in the list, each with its place. Raises RedisError."""
        return self._page(f"jobs:{tenant}", before, count)

    def listed_deliveries(self, tenant: str, before: str | None, count: int) -> list[tuple[str, str]]:
        """The same of webhooks."""
        return self._page(f"deliveries:{tenant}", before, count)

    def _page(self, key: str, before: str | None, count: int) -> list[tuple[str, str]]:
        last = "+inf"
        skipped: set[str] = set()
        if before is not None:
            last, _, job = before.partition("-")
            # Jobs of the same microsecond are told apart by their ids, in the order in which Redis has them.
            same = self.redis.zrevrangebyscore(key, last, last)
            skipped = {other for other in same if other >= job}
        found = self.redis.zrevrangebyscore(key, last, "-inf", 0, count + len(skipped), withscores=True)
        return [(job, f"{int(score)}-{job}") for job, score in found if job not in skipped][:count]

    def history_is_listed(self) -> bool:
        return bool(self._try(lambda: self.redis.exists("emx:history"), 0))

    def history_was_listed(self) -> None:
        self._try(lambda: self.redis.set("emx:history", 1), None)

    # Batches: how many items have ended, by state; counted anew from the store now and then

    def batch_counts(self, batch: str) -> dict[str, int] | None:
        found: dict[str, str] = self._try(lambda: self.redis.hgetall(f"batch:{batch}"), {})
        return {state: int(n) for state, n in found.items()} if found else None

    def keep_batch_counts(self, batch: str, counts: dict[str, int]) -> None:
        def keep() -> None:
            together = self.redis.pipeline(transaction=True)
            together.hset(f"batch:{batch}", mapping={"cancelled": 0, **counts})  # a hash can't be empty
            together.expire(f"batch:{batch}", _COUNTS_TTL).execute()

        self._try(keep, None)

    def batch_item_ended(self, batch: str, state: str) -> None:
        self._try(lambda: self._count_item(keys=[f"batch:{batch}"], args=[state]), None)

    def list_batch(self, tenant: str, batch: str, at: datetime) -> None:
        self._list(f"batches:{tenant}", batch, at)

    def unlist_batch(self, tenant: str, batch: str) -> None:
        self._try(lambda: self.redis.zrem(f"batches:{tenant}", batch), None)

    def listed_batches(self, tenant: str, before: str | None, count: int) -> list[tuple[str, str]]:
        return self._page(f"batches:{tenant}", before, count)

    # Events: what happens to a job, for those who watch it

    def watch(self, job: str) -> None:
        """Somebody wants to see the job's text as it is written, for the next few seconds."""
        self._try(lambda: self.redis.set(f"watched:{job}", 1, ex=_WATCH_TTL), None)

    def watched(self, jobs: list[str]) -> set[str]:
        return self._flagged("watched", jobs)

    def tell(self, job: str, text: str, offset: int) -> None:
        """A piece of the report's text, which begins after so many characters."""

        def add() -> None:
            self.redis.xadd(f"told:{job}", {"text": text, "offset": offset}, maxlen=_EVENTS_KEPT, approximate=True)
            self.redis.expire(f"told:{job}", _EVENTS_TTL)
            self.redis.publish(NEWS_CHANNEL, f"{job} text")

        self._try(add, None)

    def told(self, job: str, after: str) -> list[tuple[str, dict[str, str | int]]]:
        """What was told after a place, each piece with its own place."""
        found: list[Any] = self._try(lambda: self.redis.xrange(f"told:{job}", f"({after}"), [])
        return [(place, {"offset": int(said["offset"]), "text": said["text"]}) for place, said in found]

    def _flagged(self, flag: str, jobs: list[str]) -> set[str]:
        if not jobs:
            return set()
        found = self._try(lambda: self.redis.mget([f"{flag}:{job}" for job in jobs]), [None] * len(jobs))
        return {job for job, value in zip(jobs, found, strict=True) if value}

    # Hints

    def ask_to_cancel(self, job: str) -> None:
        self._try(lambda: self.redis.set(f"cancel:{job}", 1, ex=_CANCEL_TTL), None)

    def asked_to_cancel(self, jobs: list[str]) -> set[str]:
        return self._flagged("cancel", jobs)

    def ended(self, job: str, state: str) -> None:
        marks = [f"enqueued:{job}", f"started:{job}", f"begun:{job}"]
        self._try(lambda: self._ended(keys=marks, args=[job, NEWS_CHANNEL, state]), None)

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
