"""How a scrub looks at objects."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from emx_shared.ledger import object_keys
from emx_shared.ledger.damage import is_newer
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import (
    CutRecord,
    Outcome,
    Record,
    UnreadableRecord,
    read_record,
)
from emx_shared.ledger.scrub.faults import Fault, FaultKind
from emx_shared.store import NoSuchObject
from emx_shared.store.base import Entry

T = TypeVar("T")


@dataclass(frozen=True)
class Look(Generic[T]):
    """What is stored under a key.

    Attributes:
        value: what it says; None if it is absent or can't be read.
        there: whether there is such an object.
        cut: whether it is no whole JSON.
        fault: what is wrong with it, where it is whole and can't be read.
    """

    key: str
    value: T | None = None
    there: bool = False
    cut: bool = False
    fault: Fault | None = None


@dataclass(frozen=True)
class View:
    """A ledger as a scrub sees it: what is younger than ``older_than`` seconds may be in work."""

    ledger: Ledger
    older_than: float

    def is_old(self, *entries: Entry) -> bool:
        """Return whether all these objects were written long enough ago."""
        now = self.ledger.now()
        return all((now - entry.modified).total_seconds() >= self.older_than for entry in entries)

    def ended_long_ago(self, outcome: Outcome) -> bool:
        """Return whether whoever ended it had time for the rest."""
        return (self.ledger.now() - outcome.finished_at).total_seconds() >= self.older_than

    def look(self, key: str, load: Callable[[bytes], T]) -> Look[T]:
        """Read an object, whatever state it is in."""
        try:
            data = self.ledger.store.get(key)
        except NoSuchObject:
            return Look(key)
        try:
            return Look(key, load(data), there=True)
        except CutRecord:
            return Look(key, there=True, cut=True)
        except UnreadableRecord:
            kind = FaultKind.NEWER if is_newer(data) else FaultKind.DAMAGED
            return Look(key, there=True, fault=Fault(kind, key))

    def record(self, id: str) -> Look[Record]:
        """Look at the record of a job or a batch."""
        return self.look(object_keys.record(id), read_record)

    def outcome(self, id: str) -> Look[Outcome]:
        """Look at the outcome of a job or a batch."""
        return self.look(object_keys.outcome(id), Outcome.load)

    def is_open(self, id: str) -> bool:
        """Return whether there is an open marker."""
        return self.ledger.store.exists(object_keys.open_marker(id))

    def is_being_erased(self, id: str) -> bool:
        """Return whether there is an erasure's marker."""
        return self.ledger.store.exists(object_keys.erasing(id))

    def deletion(self, kind: FaultKind, key: str) -> Fault:
        """Return a fault that is mended by deleting the object."""
        return Fault(kind, key, lambda: self.ledger.store.delete(key))
