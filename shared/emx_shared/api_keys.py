"""API keys: who may do what, for which tenant. They are kept in the store, where every gateway sees them."""

import hashlib
import hmac
import re
import secrets
from datetime import datetime
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from emx_shared.store import NoSuchObject, Store

Scope = Literal["submit", "read", "admin"]
"""``submit`` studies and cancel them; ``read`` jobs, reports and images; ``admin``: erase, webhooks."""

SCOPES: tuple[Scope, ...] = get_args(Scope)

KEYLESS_TENANT = "default"
"""Whose the jobs are of callers without a key, on a server that has no keys."""

ACCESS = "access/"
"""Prefix of the objects that have the keys."""

_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_KEY = re.compile(r"emx_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")


class BadKeyRequest(ValueError):
    """A key can't be created or revoked as asked; the text says why."""


class ApiKey(BaseModel):
    """An API key as it is stored: of its secret only the SHA-256.

    The secret has 256 random bits, so no slower hash is needed (NIST SP 800-63B, 5.1.2).

    Attributes:
        adopted: the tenant whose jobs this key's tenant has taken over as its own; None if it has its own.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    tenant: str
    scopes: tuple[Scope, ...]
    name: str = ""
    digest: str
    created_at: datetime
    revoked_at: datetime | None = None
    adopted: str | None = None

    @property
    def jobs_of(self) -> str:
        """The tenant under whose name the jobs are stored that this key reaches."""
        return self.adopted or self.tenant

    @property
    def prefix(self) -> str:
        """What may be shown of the key."""
        return f"emx_{self.id}_…"


class KeyRing:
    """All API keys of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(
        self, tenant: str, scopes: tuple[Scope, ...] = SCOPES, name: str = "", adopt_keyless: bool = False
    ) -> tuple[ApiKey, str]:
        """Create a key.

        Args:
            tenant: whose.
            scopes: what it allows.
            name: the operator's name for it.
            adopt_keyless: whether the tenant takes over all jobs from the time without keys.

        Returns:
            The key, and its text, which can't be had again.

        Raises:
            BadKeyRequest: the tenant's name or the scopes are invalid.
            StoreError: the store is unavailable.
        """
        if not _TENANT.fullmatch(tenant):
            raise BadKeyRequest(
                "A tenant's name has up to 63 of a–z, 0–9, - and _, and begins with a letter or digit."
            )
        if not scopes or not set(scopes) <= set(SCOPES):
            raise BadKeyRequest(f"A key's scopes are one or more of {', '.join(SCOPES)}.")
        heir = next((key.tenant for key in self.list() if key.adopted == tenant), None)
        if heir:
            raise BadKeyRequest(
                f"The jobs of tenant {tenant} belong to tenant {heir} now: create a key of that tenant."
            )
        adopted = KEYLESS_TENANT if adopt_keyless else self._adopted_by(tenant)
        id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        key = ApiKey(
            id=id,
            tenant=tenant,
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
            name=name[:80],
            digest=_digest(secret),
            created_at=self._store.now(),
            adopted=None if adopted == tenant else adopted,
        )
        self._store.put(ACCESS + id, key.model_dump_json().encode())
        return key, f"emx_{id}_{secret}"

    def list(self) -> list[ApiKey]:
        """Return all keys, revoked ones too, oldest first."""
        found = [self.get(entry.key.removeprefix(ACCESS)) for entry in self._store.list(ACCESS)]
        return sorted((key for key in found if key), key=lambda key: key.created_at)

    def any(self) -> bool:
        """Return whether there is a key, be it revoked: nobody gets in without one then."""
        return next(iter(self._store.list(ACCESS)), None) is not None

    def revoke(self, id: str) -> ApiKey:
        """Revoke a key, for good. Raises BadKeyRequest if there is no such key."""
        key = self.get(id) if re.fullmatch(r"[a-z0-9]{12}", id) else None
        if key is None:
            raise BadKeyRequest("There is no key with this id. `emx keys list` shows them.")
        revoked = key if key.revoked_at else key.model_copy(update={"revoked_at": self._store.now()})
        self._store.put(ACCESS + id, revoked.model_dump_json().encode())
        return revoked

    def clear(self) -> int:
        """Remove all keys for good, so that none is needed any more. Return how many there were."""
        found = list(self._store.list(ACCESS))
        for entry in found:
            self._store.delete(entry.key)
        return len(found)

    def find(self, text: str) -> ApiKey | None:
        """Return the key that a caller shows; None if it is invalid or revoked."""
        shown = _KEY.fullmatch(text)
        key = self.get(shown[1]) if shown else None
        if shown is None or key is None or key.revoked_at:
            return None
        return key if hmac.compare_digest(key.digest, _digest(shown[2])) else None

    def is_valid(self, id: str) -> bool:
        """Return whether there is a key with this id that wasn't revoked."""
        key = self.get(id)
        return key is not None and key.revoked_at is None

    def _adopted_by(self, tenant: str) -> str | None:
        """Return whose jobs a tenant has taken over, by its other keys."""
        return next((key.adopted for key in self.list() if key.tenant == tenant and key.adopted), None)

    def get(self, id: str) -> ApiKey | None:
        """Return a key, be it revoked; None if there is none with this id, or it is damaged."""
        try:
            return ApiKey.model_validate_json(self._store.get(ACCESS + id))
        except (NoSuchObject, ValidationError):
            return None


def is_key(text: str) -> bool:
    """Return whether a text has the form of a key."""
    return _KEY.fullmatch(text) is not None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
