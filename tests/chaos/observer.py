"""Watches the store for outcomes, and remembers each as it was when it was first seen."""

import json
import time

from emx_shared.ledger import object_keys
from emx_shared.store import NoSuchObject, Store, StoreError
from tests.chaos.background import Background
from tests.chaos.book import Book

_PAUSE_SECONDS, _SHARE = 0.05, 4
"""It pauses at least so long, and so many times as long as it took to look."""


def read_whole(store: Store, key: str) -> bytes | None:
    """Return a record that is whole JSON; None if there is none. Raises StoreError."""
    try:
        data = store.get(key)
        json.loads(data)
    except (NoSuchObject, ValueError):
        return None
    return data


class Observer(Background):
    """Looks for the outcome of everything that was promised, several times a second, while it is entered.

    Attributes:
        first: the bytes of each outcome when it was first seen.
    """

    def __init__(self, store: Store, book: Book) -> None:
        super().__init__("observer")
        self.first: dict[str, bytes] = {}
        self._at: dict[str, float] = {}
        self._store, self._book = store, book

    def open(self, row: str | None = None) -> list[str]:
        """Return the ids of what hasn't ended, of one row or of all."""
        promises = self._book.promises if row is None else self._book.of(row)
        return [promise.id for promise in promises if promise.id not in self.first]

    def first_after(self, row: str, at: float) -> float | None:
        """Return when the first outcome of a row was seen after a time, by the monotonic clock."""
        times = [self._at[promise.id] for promise in self._book.of(row) if promise.id in self._at]
        return min((seen for seen in times if seen > at), default=None)

    def last_of(self, row: str) -> float | None:
        """Return when the last outcome of a row was seen; None while one is missing."""
        times = [self._at.get(promise.id) for promise in self._book.of(row)]
        return max((seen for seen in times if seen), default=None) if all(times) else None

    def _run(self) -> None:
        took = 0.0
        while not self._over.wait(max(_PAUSE_SECONDS, _SHARE * took)):
            began = time.monotonic()
            for id in self.open():
                try:
                    found = read_whole(self._store, object_keys.outcome(id))
                except StoreError:
                    break
                if found is not None:
                    self._at[id] = time.monotonic()
                    self.first[id] = found
            took = time.monotonic() - began
