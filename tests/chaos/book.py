"""What the service has promised: every job and batch that it accepted, with what may become of it."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["job", "item", "batch"]


@dataclass
class Promise:
    """An accepted job, item or batch.

    Attributes:
        id: the service's.
        row: name of the row in which it was accepted.
        ends: the states in which it may end.
        hooked: whether an event is owed for its end.
        items: ids of a batch's items.
        erased: whether its erasure was asked for, so that its outcome may become a tombstone.
    """

    id: str
    row: str
    kind: Kind
    ends: set[str] = field(default_factory=lambda: {"succeeded"})
    hooked: bool = False
    items: tuple[str, ...] = ()
    erased: bool = False


class Book:
    """All promises, and faults that clients saw. Any number of threads may write into it."""

    def __init__(self) -> None:
        self._promises: dict[str, Promise] = {}
        self._keys: dict[str, str] = {}
        self._given_up: list[tuple[str, str]] = []
        self._doubled: list[tuple[str, str]] = []
        self._secrets: list[tuple[str, bytes]] = []
        self._remarks: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()

    def accept(self, promises: Iterable[Promise], key: str | None) -> None:
        """Note what was accepted. ``key`` is the idempotency key, which stands for the first of these for ever."""
        promises = list(promises)
        with self._lock:
            for promise in promises:
                self._promises.setdefault(promise.id, promise)
            if key and self._keys.setdefault(key, promises[0].id) != promises[0].id:
                self._doubled.append((promises[0].row, f"one key gave {self._keys[key]} and {promises[0].id}"))

    def may_end(self, id: str, state: str) -> None:
        """Allow one more state at the end of a job."""
        with self._lock:
            self._promises[id].ends.add(state)

    def must_end(self, id: str, state: str) -> None:
        """Allow this state alone at the end of a job."""
        with self._lock:
            self._promises[id].ends = {state}

    def erasing(self, ids: Iterable[str]) -> None:
        """Note that erasures are asked for from now on."""
        with self._lock:
            for id in ids:
                self._promises[id].erased = True
                self._promises[id].ends.add("cancelled")

    def release(self, ids: Iterable[str]) -> None:
        """Promise nothing of these any more: items of a cancelled batch, which may never become jobs."""
        with self._lock:
            for id in ids:
                self._promises.pop(id, None)

    def keep_secret(self, row: str, secret: bytes) -> None:
        """Note bytes of an erased patient, which nobody may find once all has ended."""
        with self._lock:
            self._secrets.append((row, secret))

    def remark(self, row: str, what: str) -> None:
        """Count something that a client saw."""
        with self._lock:
            counts = self._remarks.setdefault(row, {})
            counts[what] = counts.get(what, 0) + 1

    def give_up(self, row: str, what: str) -> None:
        """Note a request that no gateway answered within a client's patience."""
        with self._lock:
            self._given_up.append((row, f"a client gave up: {what}"))

    @property
    def given_up(self) -> list[tuple[str, str]]:
        """Requests that were never answered: the row, and a sentence."""
        with self._lock:
            return list(self._given_up)

    @property
    def promises(self) -> list[Promise]:
        """Everything that was accepted."""
        with self._lock:
            return list(self._promises.values())

    @property
    def doubled(self) -> list[tuple[str, str]]:
        """Keys that stood for two jobs: the row, and a sentence."""
        with self._lock:
            return list(self._doubled)

    @property
    def secrets(self) -> list[tuple[str, bytes]]:
        """Bytes of erased patients, each with its row."""
        with self._lock:
            return list(self._secrets)

    def of(self, row: str) -> list[Promise]:
        """Return what was accepted in a row."""
        return [promise for promise in self.promises if promise.row == row]

    def remarks(self, row: str) -> dict[str, int]:
        """Return what clients saw in a row, and how often."""
        with self._lock:
            return dict(self._remarks.get(row, {}))
