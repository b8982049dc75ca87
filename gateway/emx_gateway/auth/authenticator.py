"""Who is calling."""

import time
from dataclasses import dataclass, field

from emx_gateway.http.problems import Problem
from emx_shared.api_keys import KEYLESS_TENANT, SCOPES, ApiKey, KeyRing, Scope, is_key

NOTICED_AFTER = 5.0
"""Seconds after which every gateway knows of a key that was created or revoked."""

_REMEMBERED = 10_000
"""Keys that a gateway remembers at a time."""


@dataclass(frozen=True)
class Caller:
    """Whoever sent a request.

    Attributes:
        key: the API key's id; None where the gateway has no keys, and everyone on this machine may do everything.
        request_id: under which the logs have the request.
    """

    tenant: str = KEYLESS_TENANT
    scopes: tuple[Scope, ...] = SCOPES
    key: str | None = None
    request_id: str | None = None


@dataclass
class Authenticator:
    """Knows the API keys, as of a few seconds ago.

    Attributes:
        may_open: whether it stops asking for keys when the operator removes all of them. A server that other
            machines can reach does so only when it is started again.
    """

    ring: KeyRing
    may_open: bool = False
    _known: dict[str, tuple[float, ApiKey | None]] = field(default_factory=dict)
    _locked: tuple[float, bool] = (0.0, False)
    _valid: dict[str, tuple[float, bool]] = field(default_factory=dict)

    def caller(self, shown: str | None) -> Caller:
        """Return who shows this API key. Raises Problem 401 where a key is needed and this one isn't valid."""
        if shown is None:
            if self._needs_keys():
                raise unauthenticated("This server asks for an API key: send Authorization: Bearer emx_….")
            return Caller()
        key = self._find(shown)
        if key is None:
            raise unauthenticated("This API key is invalid or was revoked.")
        return Caller(key.jobs_of, key.scopes, key.id)

    def still_admits(self, caller: Caller) -> bool:
        """Return whether a caller would be admitted, as of a few seconds ago: a stream may outlive its key."""
        if caller.key is None:
            return not self._needs_keys()
        now = time.monotonic()
        looked_at, valid = self._valid.get(caller.key, (-NOTICED_AFTER, True))
        if now - looked_at >= NOTICED_AFTER:
            valid = self.ring.is_valid(caller.key)
            if len(self._valid) >= _REMEMBERED:
                self._valid.clear()
            self._valid[caller.key] = (now, valid)
        return valid

    def _needs_keys(self) -> bool:
        """Return whether keys are needed: for as long as there is one. Revoking the last opens no door."""
        looked_at, locked = self._locked
        if (self.may_open or not locked) and time.monotonic() - looked_at > NOTICED_AFTER:
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


def unauthenticated(detail: str) -> Problem:
    """Return Problem 401, with the challenge that HTTP asks for (RFC 9110, 15.5.2)."""
    return Problem(401, "unauthenticated", detail, {"WWW-Authenticate": 'Bearer realm="ExplainMyXray"'})
