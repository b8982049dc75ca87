"""What webhooks are signed with."""

import base64
import secrets
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from emx_shared.root_error import ExplainMyXrayError
from emx_shared.settings import Settings
from emx_shared.store import NoSuchObject, Store

OVERLAP = timedelta(hours=24)
"""For so long after a rotation, events are signed with the former secret too."""

SECRETS = "secrets/"
"""Prefix of the objects that have them."""

MOST_SECRETS = 10
"""Secrets of a tenant that may be valid at a time: every event carries a signature with each."""


class TooManySecrets(ExplainMyXrayError):
    """A tenant's secret was rotated too often in ``OVERLAP``."""


class _Secret(BaseModel):
    model_config = ConfigDict(frozen=True)

    secret: str
    created_at: datetime
    retires_at: datetime | None = None


class _TenantSecrets(BaseModel):
    secrets: tuple[_Secret, ...] = ()


class WebhookSecrets:
    """Each tenant's signing secrets: the newest first, the former as long as it may still be needed.

    A tenant that has created none uses the operator's, if there is one.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._operators = store, settings.webhook_secret

    def active(self, tenant: str) -> list[str]:
        """Return all secrets that events are signed with now; empty if there is none."""
        now = self._store.now()
        own = [one.secret for one in self._stored(tenant) if one.retires_at is None or one.retires_at > now]
        return own or ([self._operators] if self._operators else [])

    def rotate(self, tenant: str) -> str:
        """Create a secret (``whsec_…``) and return it; those before it stay valid for ``OVERLAP``.

        So a rotation that is repeated, since its answer was lost, takes the secret in use from nobody.

        Raises:
            TooManySecrets: so many are valid that no more signatures should be sent.
        """
        now = self._store.now()
        new = _Secret(secret="whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(), created_at=now)
        valid = [one for one in self._stored(tenant) if one.retires_at is None or one.retires_at > now]
        if len(valid) >= MOST_SECRETS:
            raise TooManySecrets(f"{len(valid)} signing secrets are valid. Wait until the oldest has expired.")
        retired = [one.model_copy(update={"retires_at": one.retires_at or now + OVERLAP}) for one in valid]
        own = _TenantSecrets(secrets=(new, *retired))
        self._store.put(_key(tenant), own.model_dump_json().encode())
        return new.secret

    def _stored(self, tenant: str) -> tuple[_Secret, ...]:
        try:
            return _TenantSecrets.model_validate_json(self._store.get(_key(tenant))).secrets
        except NoSuchObject:
            return ()


def _key(tenant: str) -> str:
    return f"{SECRETS}webhooks/{tenant}"
