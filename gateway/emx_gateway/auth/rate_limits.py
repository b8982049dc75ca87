"""How often each tenant may call."""

import time

from limits import RateLimitItem, RateLimitItemPerDay, parse
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import RedisError

from emx_gateway.http.problems import Problem
from emx_shared.redis_state.redis_connection import RedisConnection
from emx_shared.settings import Settings


class RateLimits:
    """Counts each tenant's requests in Redis. While Redis is unavailable, nothing is limited."""

    def __init__(self, settings: Settings, redis: RedisConnection) -> None:
        self._limits: dict[str, RateLimitItem] = {
            "submit": parse(settings.submit_limit),
            "read": parse(settings.read_limit),
        }
        self._quota = RateLimitItemPerDay(settings.daily_quota) if settings.daily_quota else None
        self._breaker = redis.breaker
        storage = RedisStorage(settings.redis, connection_pool=redis.client.connection_pool)
        self._counter = SlidingWindowCounterRateLimiter(storage)

    def admit(self, tenant: str, kind: str) -> dict[str, str]:
        """Count one request.

        Args:
            tenant: whose it is.
            kind: ``submit`` or ``read``.

        Returns:
            Headers that tell what is left (draft-ietf-httpapi-ratelimit-headers).

        Raises:
            Problem: 429, too many.
        """
        limit = self._limits[kind]
        detail = f"More than {limit.amount} requests in {limit.get_expiry()} s: slow down."
        return self._count(limit, tenant, kind, 1, "too-many-requests", detail)

    def charge(self, tenant: str, images: int, what: str = "quota") -> None:
        """Count images that are about to be submitted against the tenant's day.

        Args:
            tenant: whose.
            images: how many.
            what: ``quota``, or ``uploads`` for those that will be submitted later, which have the same number.

        Raises:
            Problem: 429, too many.
        """
        if self._quota:
            detail = f"You may submit {self._quota.amount} images a day. Try again when the day is over."
            self._count(self._quota, tenant, what, images, "quota-exceeded", detail)

    def _count(
        self, limit: RateLimitItem, tenant: str, kind: str, cost: int, problem: str, detail: str
    ) -> dict[str, str]:
        try:
            with self._breaker.call():
                admitted = self._counter.hit(limit, tenant, kind, cost=cost)
                window = self._counter.get_window_stats(limit, tenant, kind)
        except RedisError:
            return {}
        resets = max(round(window.reset_time - time.time()), 1)
        headers = {
            "RateLimit-Policy": f'"{kind}";q={limit.amount};w={limit.get_expiry()}',
            "RateLimit": f'"{kind}";r={max(window.remaining, 0)};t={resets}',
        }
        if not admitted:
            raise Problem(429, problem, detail, {**headers, "Retry-After": str(resets)})
        return headers
