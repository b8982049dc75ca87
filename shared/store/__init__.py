"""Object storage, the ledger's truth: one small interface and two backends."""

from shared.store.base import Entry, NotFound, Store, StoreError, StoreFull, UnsuitableStore
from shared.store.opening import open_store

__all__ = ["Entry", "NotFound", "Store", "StoreError", "StoreFull", "UnsuitableStore", "open_store"]
