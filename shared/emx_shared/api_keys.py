"""API keys: who may do what, for which tenant. They lie in the store, where every gateway sees them."""

import hashlib
import hmac
import re
import secrets
from datetime import datetime
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from emx_shared.store import NoSuchObject, Store

Scope = Literal["submit", "read", "admin"]
"""``submit`` studies and cancel them; ``read`` jobs, reports and images; ``admin``: erase, webhooks."""

SCOPES: tuple[Scope, ...] = get_args(Scope)

_FOLDER = "access/"
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_KEY = re.compile(r"emx_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")


class BadKeyRequest(ValueError):
    """What a key was asked for can't be; the text says why."""


class ApiKey(BaseModel):
    """A key as it is kept: of its secret only the SHA-256. The secret has 256 random bits, so no slower hash is
    needed (NIST SP 800-63B, 5.1.2)."""

    model_config = ConfigDict(frozen=True)

    id: str
    tenant: str
    scopes: tuple[Scope, ...]
    name: str = ""
    digest: str
    created_at: datetime
    revoked_at: datetime | None = None

    @property
    def prefix(self) -> str:
        """What may be shown of it."""
        return f"emx_{self.id}_…"


class KeyRing:
    """All keys of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, tenant: str, scopes: tuple[Scope, ...] = SCOPES, name: str = "") -> tuple[ApiKey, str]:
        """A new key, and its text, which is nowhere to be had again. Raises BadKeyRequest, StoreError."""
        if not _TENANT.fullmatch(tenant):
            raise BadKeyRequest(
                "A tenant's name has up to 63 of a–z, 0–9, - and _, and begins with a letter or digit."
            )
        if not scopes or not set(scopes) <= set(SCOPES):
            raise BadKeyRequest(f"A key's scopes are one or more of {', '.join(SCOPES)}.")
        id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        key = ApiKey(
            id=id,
            tenant=tenant,
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
            name=name[:80],
            digest=_digest(secret),
            created_at=self._store.now(),
        )
        self._store.put(_FOLDER + id, key.model_dump_json().encode())
        return key, f"emx_{id}_{secret}"

    def list(self) -> list[ApiKey]:
        """All of them, the revoked ones too, oldest first."""
        found = [self._get(entry.key.removeprefix(_FOLDER)) for entry in self._store.list(_FOLDER)]
        return sorted((key for key in found if key), key=lambda key: key.created_at)

    def any(self) -> bool:
        """Whether there ever was a key: from then on nobody gets in without one."""
        return next(iter(self._store.list(_FOLDER)), None) is not None

    def revoke(self, id: str) -> ApiKey:
        """Raises BadKeyRequest if there is no such key."""
        key = self._get(id) if re.fullmatch(r"[a-z0-9]{12}", id) else None
        if key is None:
            raise BadKeyRequest("There is no key with this id. `emx keys list` shows them.")
        revoked = key if key.revoked_at else key.model_copy(update={"revoked_at": self._store.now()})
        self._store.put(_FOLDER + id, revoked.model_dump_json().encode())
        return revoked

    def find(self, text: str) -> ApiKey | None:
        """The key that a caller shows, if it is one and wasn't revoked."""
        shown = _KEY.fullmatch(text)
        key = self._get(shown[1]) if shown else None
        if shown is None or key is None or key.revoked_at:
            return None
        return key if hmac.compare_digest(key.digest, _digest(shown[2])) else None

    def _get(self, id: str) -> ApiKey | None:
        try:
            return ApiKey.model_validate_json(self._store.get(_FOLDER + id))
        except NoSuchObject:
            return None


def is_key(text: str) -> bool:
    """Whether a text has the form of a key."""
    return _KEY.fullmatch(text) is not None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
