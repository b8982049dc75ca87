"""Uploads: images that arrive before the job that is made of them."""

from emx_shared.ledger import object_keys
from emx_shared.ledger.ledger import Ledger


def use_up(ledger: Ledger, tenant: str, id: str) -> None:
    """Delete an upload that a job has been made of. Nothing more can be uploaded under its address."""
    ledger.store.put(object_keys.used_upload(tenant, id), b"")
    ledger.store.delete(object_keys.upload(tenant, id))


def is_used_up(ledger: Ledger, tenant: str, id: str) -> bool:
    """Return whether a job has been made of an upload."""
    return ledger.store.exists(object_keys.used_upload(tenant, id))


def reopen(ledger: Ledger, tenant: str, id: str) -> None:
    """Let an upload be used once more, whose client asks for its address again by the same idempotency key."""
    ledger.store.delete(object_keys.used_upload(tenant, id))


def receive(ledger: Ledger, tenant: str, id: str, data: bytes) -> bool:
    """Store an upload's image. Return False if a job has been made of the upload already."""
    key = object_keys.upload(tenant, id)
    if is_used_up(ledger, tenant, id):
        return False
    ledger.store.put(key, data)
    if is_used_up(ledger, tenant, id):  # meanwhile
        ledger.store.delete(key)
        return False
    return True
