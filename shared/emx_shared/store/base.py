"""What the ledger asks of an object store."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

log = logging.getLogger("emx.store")

_CLOCK_SECONDS = 60.0
"""For so long a store's clock isn't asked again."""

_CLOCK_GRAIN = 2.0
"""Seconds by which file systems' times and HTTP's dates may be coarser than a clock's."""

_MOST_CLOCK_ERROR = 60.0
"""Seconds."""


class StoreError(Exception):
    """The store could not carry out an operation; trying again later may help."""


class StoreFull(StoreError):
    """The store is full."""


class NoSuchObject(KeyError):
    """No object has that key."""


class UnsuitableStore(StoreError):
    """The store lacks something that the ledger depends on, such as conditional PUT."""


@dataclass(frozen=True)
class Entry:
    """One listed object; ``modified`` is by the store's clock, in UTC."""

    key: str
    modified: datetime


@dataclass(frozen=True)
class _ClockReading:
    """What the store's clock said, in seconds of Unix time, and when that was, in ticks."""

    store: float
    at: float


def _ticks() -> float:
    """Return a clock that nobody sets, in seconds; where there is one, it goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Store(ABC):
    """An object store. Keys are relative paths with ``/``.

    A write is durable when it returns, and visible whole or not at all. Every method may raise StoreError.
    """

    _clock: _ClockReading | None = None

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Return an object's bytes. Raises NoSuchObject."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write or replace an object."""

    @abstractmethod
    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write unless the key exists; of racing writers one gets True (If-None-Match: *, RFC 9110)."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete an object; it is no error if it doesn't exist."""

    def delete_below(self, prefix: str) -> None:
        """Delete all objects whose key begins with ``prefix``."""
        for entry in list(self.list(prefix)):
            self.delete(entry.key)

    @abstractmethod
    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects whose key begins with ``prefix``, in key order."""

    def now(self) -> datetime:
        """Return the store's clock, by which ages are measured, in UTC. It is asked for at most once a minute.

        It is the same for every process, even where one machine's own clock is wrong, or is set meanwhile.
        """
        reading = self._read_clock()
        return datetime.fromtimestamp(reading.store + _ticks() - reading.at, UTC)

    def clock_fault(self) -> str | None:
        """Return how far this machine's clock is off the store's and what to do, if that is over a minute."""
        error = time.time() - self.now().timestamp()
        if abs(error) <= _MOST_CLOCK_ERROR:
            return None
        return (
            f"This machine's clock is {abs(error):.0f} s {'ahead of' if error > 0 else 'behind'} the store's. "
            "Set whichever of them is wrong, by NTP for example."
        )

    def _read_clock(self) -> _ClockReading:
        if self._clock is None or _ticks() - self._clock.at > _CLOCK_SECONDS:
            asked, own = self._ask_clock(), time.time()
            self._clock = _ClockReading(own if abs(asked - own) <= _CLOCK_GRAIN else asked, _ticks())
            if fault := self.clock_fault():
                log.error("%s Until then nothing expires.", fault)
        return self._clock

    @abstractmethod
    def _ask_clock(self) -> float:
        """Return what the store's clock says now, in seconds of Unix time."""

    @abstractmethod
    def size(self, key: str) -> int:
        """Return an object's size in bytes. Raises NoSuchObject."""

    @abstractmethod
    def replace(self, key: str, expected: bytes, data: bytes) -> bool:
        """Write an object if it still has the expected content. Return whether this writer did it."""

    def presign_put(self, key: str, seconds: int) -> str | None:
        """Return a URL to which anyone may PUT this object for so long; None where the store has no address."""
        return None

    def unfinished(self, seconds: float) -> Iterator[str]:
        """Yield the names of what writes left behind, where a store has such.

        These are the writes of processes that are gone, and any that began so many seconds ago.
        """
        yield from ()

    def drop_unfinished(self, seconds: float) -> None:
        """Delete what ``unfinished`` names."""
        return

    def exists(self, key: str) -> bool:
        """Return whether there is such an object."""
        try:
            self.get(key)
        except NoSuchObject:
            return False
        return True

    def cut_write(self, key: str, data: bytes, sent: int) -> bool:
        """Begin to write an object, and hang up after so many bytes. Return False where a write can't be cut."""
        return False

    def prepare(self) -> bool:
        """Make what holds the objects. Return whether it wasn't there. Raises UnsuitableStore for versioning."""
        return False

    def remove(self) -> None:
        """Remove what ``prepare`` made. It must be empty."""
        return

    def check(self) -> None:
        """Prepare the store, and refuse one that can't hold a ledger, as far as that is known at once.

        Raises:
            UnsuitableStore: see ``store/suitability.py``.
            StoreError: it is unavailable.
        """
        from emx_shared.store.suitability import refuse_unsuitable

        self.prepare()
        refuse_unsuitable(self)
