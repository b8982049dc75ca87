"""Object storage, the ledger's truth: one small interface and two backends."""

from emx_shared.store.base import Entry, NoSuchObject, Store, StoreError, StoreFull, UnsuitableStore
from emx_shared.store.selection import open_store

__all__ = ["Entry", "NoSuchObject", "Store", "StoreError", "StoreFull", "UnsuitableStore", "open_store"]
