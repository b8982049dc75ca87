import threading
from pathlib import Path

import pytest

from shared.store import NotFound, Store, UnsuitableStore
from shared.store.directory import DirectoryStore


def test_objects_are_written_read_listed_and_deleted(store: Store) -> None:
    store.put("a/one", b"1")
    store.put("a/one", b"replaced")
    store.put("a/two", b"2")
    store.put("b/three", b"3")
    assert store.get("a/one") == b"replaced"
    assert [entry.key for entry in store.list("a/")] == ["a/one", "a/two"]
    assert abs((store.now() - next(store.list("b/")).modified).total_seconds()) < 60
    store.delete("a/one")
    store.delete("a/one")
    assert not store.exists("a/one")
    with pytest.raises(NotFound):
        store.get("a/one")


def test_of_racing_writers_exactly_one_wins(store: Store) -> None:
    for race in range(5):
        wins: list[int] = []
        barrier = threading.Barrier(12)

        def write(
            number: int, key: str = f"race/{race}", barrier: threading.Barrier = barrier, wins: list[int] = wins
        ) -> None:
            barrier.wait()
            if store.put_if_absent(key, str(number).encode()):
                wins.append(number)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(wins) == 1
        assert store.get(f"race/{race}") == str(wins[0]).encode()


def test_a_store_that_ignores_conditional_writes_is_refused(tmp_path: Path) -> None:
    class Careless(DirectoryStore):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            self.put(key, data)
            return True

    with pytest.raises(UnsuitableStore, match="conditional"):
        Careless(tmp_path).check()


@pytest.mark.parametrize("key", ["", "../x", "a/../b", "/a", "a//b", ".parts/x"])
def test_keys_cannot_leave_the_directory(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError):
        DirectoryStore(tmp_path).put(key, b"")
