"""Who is calling, whether they may, and how often."""

import ipaddress
import time
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from limits import RateLimitItem, RateLimitItemPerDay, parse
from limits.storage import storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import RedisError

from emx_gateway.http.problems import Problem
from emx_shared.api_keys import SCOPES, ApiKey, KeyRing, Scope, is_key
from emx_shared.settings import Settings

NOTICED_AFTER = 5.0
"""Seconds after which every gateway knows of a key that was made or revoked."""

_REMEMBERED = 10_000
"""Keys that a gateway knows at a time."""


@dataclass(frozen=True)
class Caller:
    """``key`` is the key's id; None where the gateway has no keys, and everyone on this machine may do all."""

    tenant: str = "default"
    scopes: tuple[Scope, ...] = SCOPES
    key: str | None = None


@dataclass
class Doorman:
    """Knows the keys, as of a few seconds ago."""

    ring: KeyRing
    _known: dict[str, tuple[float, ApiKey | None]] = field(default_factory=dict)
    _locked: tuple[float, bool] = (0.0, False)

    def caller(self, shown: str | None) -> Caller:
        """Raises Problem 401 where a key is needed and what is ``shown`` is none."""
        if shown is None:
            if self._needs_keys():
                raise _unknown("This server asks for an API key: send Authorization: Bearer emx_….")
            return Caller()
        key = self._find(shown)
        if key is None:
            raise _unknown("This API key is unknown or was revoked.")
        return Caller(key.tenant, key.scopes, key.id)

    def _needs_keys(self) -> bool:
        """Once there are keys, there are keys for ever: revoking the last one opens no door."""
        looked_at, locked = self._locked
        if not locked and time.monotonic() - looked_at > NOTICED_AFTER:
            self._locked = (time.monotonic(), self.ring.any())
        return self._locked[1]

    def _find(self, shown: str) -> ApiKey | None:
        if not is_key(shown):  # nor is it remembered: it may have any length
            return None
        now = time.monotonic()
        looked_at, key = self._known.get(shown, (-NOTICED_AFTER, None))
        if now - looked_at >= NOTICED_AFTER:
            key = self.ring.find(shown)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[shown] = (now, key)
        return key


class Neighbourhood:
    """From where a gateway without keys may be called: this machine's own programs and pages.

    Any page that a browser shows may send requests to localhost, and by a name of its own that points here
    (DNS rebinding) it could read the answers.
    """

    def __init__(self, settings: Settings) -> None:
        self._hosts = {settings.host, *settings.allowed_hosts}
        self._origins = set(settings.cors_origins)

    def check(self, request: Request) -> None:
        """Raises Problem 403."""
        host = _hostname(request.headers.get("host", ""))
        if not (host in self._hosts or is_loopback(host)):
            detail = (
                "Without API keys this server answers at localhost alone. Make a key (`emx keys create`), or name "
                "this host in EMX_ALLOWED_HOSTS."
            )
            raise Problem(403, "keyless-elsewhere", detail)
        if self._is_foreign(request):
            raise Problem(403, "foreign-page", "Pages of other sites may call this server with an API key only.")

    def _is_foreign(self, request: Request) -> bool:
        origin = request.headers.get("origin")
        if origin is not None:
            own = origin.partition("://")[2] == request.headers.get("host")
            return not own and origin not in self._origins
        followed = request.method == "GET" and request.headers.get("sec-fetch-mode") == "navigate"
        return request.headers.get("sec-fetch-site") == "cross-site" and not followed


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a name or an address is that of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Limiter:
    """Requests of each tenant over time, counted in Redis. While that is away, nothing is limited."""

    def __init__(self, settings: Settings) -> None:
        self._limits: dict[str, RateLimitItem] = {
            "submit": parse(settings.submit_limit),
            "read": parse(settings.read_limit),
        }
        self._quota = RateLimitItemPerDay(settings.daily_quota) if settings.daily_quota else None
        storage = storage_from_string(settings.redis, wrap_exceptions=False, socket_connect_timeout=2)
        self._counter = SlidingWindowCounterRateLimiter(storage)

    def admit(self, tenant: str, kind: str) -> dict[str, str]:
        """Count a request. Returns headers (draft-ietf-httpapi-ratelimit-headers). Raises Problem 429."""
        limit = self._limits[kind]
        detail = f"More than {limit.amount} requests in {limit.get_expiry()} s: slow down."
        return self._count(limit, tenant, kind, 1, "too-many-requests", detail)

    def charge(self, tenant: str, studies: int) -> None:
        """Count studies that are about to be submitted against the tenant's day. Raises Problem 429."""
        if self._quota:
            detail = f"A day has {self._quota.amount} studies of yours at most."
            self._count(self._quota, tenant, "quota", studies, "quota-exceeded", detail)

    def _count(
        self, limit: RateLimitItem, tenant: str, kind: str, cost: int, problem: str, detail: str
    ) -> dict[str, str]:
        try:
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


_bearer = HTTPBearer(auto_error=False, description="An API key: emx_…. Needed once the operator has made any.")


def _admitted(scope: Scope, kind: str) -> Any:
    def admit(
        request: Request, shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None
    ) -> Caller:
        doorman: Doorman = request.app.state.doorman
        limiter: Limiter = request.app.state.limiter
        if shown is None and "authorization" in request.headers:
            raise _unknown("The Authorization header must be: Bearer emx_….")
        caller = doorman.caller(shown.credentials if shown else None)
        if caller.key is None:
            neighbourhood: Neighbourhood = request.app.state.neighbourhood
            neighbourhood.check(request)
        if scope not in caller.scopes:
            raise Problem(403, "out-of-scope", f"This API key lacks the scope {scope!r}.")
        request.state.headers = limiter.admit(caller.tenant, kind)
        return caller

    return Depends(admit)


Submitter = Annotated[Caller, _admitted("submit", "submit")]
Reader = Annotated[Caller, _admitted("read", "read")]
Admin = Annotated[Caller, _admitted("admin", "read")]


def _unknown(detail: str) -> Problem:
    return Problem(401, "unauthenticated", detail, {"WWW-Authenticate": 'Bearer realm="ExplainMyXray"'})
