"""Each thing that a ledger needs of its store is found missing where it is."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from emx_shared.store import Entry, NoSuchObject, UnsuitableStore
from emx_shared.store.directory import DirectoryStore
from emx_shared.store.suitability import REQUIREMENTS, refuse_unsuitable, try_out


class IgnoresConditions(DirectoryStore):
    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True


class LooksFirst(DirectoryStore):
    """Its conditions hold for one writer, and not for several at once."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        absent = not self.exists(key)
        time.sleep(0.05)
        if absent:
            self.put(key, data)
        return absent


class ReplacesAnything(DirectoryStore):
    def replace(self, key: str, expected: bytes, data: bytes) -> bool:
        self.put(key, data)
        return True


class ReplacesWithoutCondition(DirectoryStore):
    def replace(self, key: str, expected: bytes, data: bytes) -> bool:
        try:
            same = self.get(key) == expected
        except NoSuchObject:
            return False
        time.sleep(0.05)
        if same:
            self.put(key, data)
        return same


class KeepsCutWrites(DirectoryStore):
    def cut_write(self, key: str, data: bytes, sent: int) -> bool:
        self.put(key, data[:sent])
        return True


class ReadsOldContent(DirectoryStore):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._first: dict[str, bytes] = {}

    def get(self, key: str) -> bytes:
        return self._first.setdefault(key, super().get(key)) if key.endswith("/read") else super().get(key)


class ListsOnePage(DirectoryStore):
    def list(self, prefix: str) -> Iterator[Entry]:
        for number, entry in enumerate(super().list(prefix)):
            if number < 1000:
                yield entry


class ListsInDisorder(DirectoryStore):
    def list(self, prefix: str) -> Iterator[Entry]:
        return iter(sorted(super().list(prefix), key=lambda entry: entry.key, reverse=True))


class ListsBeyondThePrefix(DirectoryStore):
    def list(self, prefix: str) -> Iterator[Entry]:
        return super().list(prefix.rstrip("/"))


class KeepsWhatWasDeleted(DirectoryStore):
    def delete(self, key: str) -> None:
        if not key.endswith("/deleted"):
            super().delete(key)


class IsTwoMinutesBehind(DirectoryStore):
    def _ask_clock(self) -> float:
        return super()._ask_clock() - 120


class GivesOtherTimes(DirectoryStore):
    def list(self, prefix: str) -> Iterator[Entry]:
        for entry in super().list(prefix):
            yield Entry(entry.key, entry.modified - timedelta(hours=1))


FAULTY: list[tuple[type[DirectoryStore], set[str]]] = [
    (DirectoryStore, set()),
    (IgnoresConditions, {"Conditional writes", "Races"}),
    (LooksFirst, {"Races"}),
    (ReplacesAnything, {"Replacing"}),
    (ReplacesWithoutCondition, {"Replacing"}),
    (KeepsCutWrites, {"Cut writes"}),
    (ReadsOldContent, {"Reading"}),
    (ListsOnePage, {"Listing"}),
    (ListsInDisorder, {"Listing"}),
    (ListsBeyondThePrefix, {"Listing"}),
    (KeepsWhatWasDeleted, {"Deleting"}),
    (IsTwoMinutesBehind, {"Clock"}),
    (GivesOtherTimes, {"Clock"}),
]


@pytest.mark.parametrize(("kind", "missing"), FAULTY, ids=lambda value: getattr(value, "__name__", ""))
def test_what_a_store_lacks_is_found(tmp_path: Path, kind: type[DirectoryStore], missing: set[str]) -> None:
    store = kind(tmp_path)
    faults = {each.name: try_out(store, each) for each in REQUIREMENTS}
    assert {name for name, fault in faults.items() if fault} == missing
    assert kind is KeepsWhatWasDeleted or not list(DirectoryStore(tmp_path).list(""))


@pytest.mark.parametrize(
    ("kind", "says"), [(IgnoresConditions, "ignores conditional"), (KeepsCutWrites, "keeps a part")]
)
def test_a_process_refuses_such_a_store_at_its_start(
    tmp_path: Path, kind: type[DirectoryStore], says: str
) -> None:
    with pytest.raises(UnsuitableStore, match=says):
        refuse_unsuitable(kind(tmp_path))
