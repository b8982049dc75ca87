"""What a write leaves behind when its process dies, or its disk refuses to delete."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emx_shared.store import StoreError
from emx_shared.store.directory import DirectoryStore
from emx_shared.store.part_files import PartFiles

_WRITER = """
import sys, time
from pathlib import Path
from emx_shared.store.part_files import PartFiles
files = PartFiles(Path(sys.argv[1]))
files.new().write_bytes(b"half a radiograph")
print("written", flush=True)
time.sleep(60)
"""


def parts(root: Path) -> list[Path]:
    return [path for path in (root / ".parts").rglob("*") if path.is_file() and path.name not in ("lock", "alive")]


def test_what_a_dead_process_was_writing_is_deleted_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("a/b", b"1")
    command = [sys.executable, "-c", _WRITER, str(tmp_path / ".parts")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout and writer.stdout.readline() == "written\n"
        store.drop_unfinished(3600)
        assert len(parts(tmp_path)) == 1 and list(store.unfinished(3600)) == []
        writer.kill()
        writer.wait()
    (left,) = store.unfinished(3600)
    assert left == parts(tmp_path)[0].relative_to(tmp_path).as_posix()
    store.drop_unfinished(3600)
    assert parts(tmp_path) == []
    assert len([folder for folder in (tmp_path / ".parts").iterdir() if folder.is_dir()]) == 1  # the store's own
    store.put("a/c", b"1")


def test_what_began_long_ago_is_deleted_whoever_wrote_it(tmp_path: Path) -> None:
    store, living = DirectoryStore(tmp_path), PartFiles(tmp_path / ".parts")
    young, old, loose = store._part_files.new(), living.new(), tmp_path / ".parts" / "loose"
    for part in (young, old, loose):
        part.write_bytes(b"half a radiograph")
    for part in (old, loose):
        os.utime(part, (time.time() - 4000,) * 2)
    store.drop_unfinished(3600)
    assert parts(tmp_path) == [young]


def test_a_part_that_the_disk_refuses_to_delete_goes_as_soon_as_it_doesnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(tmp_path)

    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as disk:
        for name in ("unlink", "replace"):
            disk.setattr(Path, name, refused)
        with pytest.raises(StoreError):
            store.put("jobs/1/input", b"a radiograph")
        assert len(parts(tmp_path)) == 1
    give_up = time.monotonic() + 10
    while parts(tmp_path) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert parts(tmp_path) == []


def test_a_store_whose_parts_were_cleared_away_still_writes(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("a", b"1")
    shutil.rmtree(tmp_path / ".parts")
    (tmp_path / ".parts").mkdir()
    store.put("a", b"2")
    assert store.get("a") == b"2"


def test_a_write_whose_part_was_deleted_is_an_error_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, sync = DirectoryStore(tmp_path), os.fsync

    def clear_away(descriptor: int) -> None:
        for part in parts(tmp_path):
            part.unlink()
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", clear_away)
    for write in (store.put, store.put_if_absent):
        with pytest.raises(StoreError):
            write("jobs/1/input", b"a radiograph")


def test_a_folder_that_is_being_made_is_left_alone(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    being_made = tmp_path / ".parts" / ".being-made"
    being_made.mkdir()
    (being_made / "alive").touch()
    store.drop_unfinished(0)
    assert being_made.exists()
    os.utime(being_made, (time.time() - 4000,) * 2)
    store.drop_unfinished(0)
    assert not being_made.exists()
