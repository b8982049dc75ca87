"""URLs at which the gateway itself receives uploads, where the store has no address of its own."""

import hashlib
import hmac
import secrets
import time

from emx_shared.store import NoSuchObject, Store

_SECRET = "secrets/uploads"


def sign_upload(store: Store, tenant: str, id: str, expires: int) -> str:
    """Return the signature of an upload URL; ``expires`` is in seconds of Unix time."""
    return hmac.new(_secret(store), f"{tenant}\n{id}\n{expires}".encode(), hashlib.sha256).hexdigest()


def is_valid(store: Store, tenant: str, id: str, expires: int, signature: str) -> bool:
    """Return whether an upload URL was signed here and hasn't expired."""
    wanted = sign_upload(store, tenant, id, expires)
    return hmac.compare_digest(wanted.encode(), signature.encode()) and expires >= time.time()


def _secret(store: Store) -> bytes:
    """Return the key that all gateways of a store share; the first of them creates it."""
    try:
        return store.get(_SECRET)
    except NoSuchObject:
        store.put_if_absent(_SECRET, secrets.token_bytes(32))
        return store.get(_SECRET)
