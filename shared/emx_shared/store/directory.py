"""The embedded default: objects as files below one directory."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from typing_extensions import override

from emx_shared.store import sharding
from emx_shared.store.base import Entry, NoSuchObject, Store, StoreError, StoreFull
from emx_shared.store.part_files import PartFiles

_PARTS, _LOCK, _LAYOUT = ".parts", "lock", ".layout"
_SHARDED = b"sharded"
_FILE_MODE, _FOLDER_MODE = 0o600, 0o700
"""Images and reports are nobody else's to read."""


class DirectoryStore(Store):
    """Files below one directory.

    A file is written aside, fsynced, then moved (put) or linked (put_if_absent) into place: atomic by POSIX
    in one file system. Its folder, and each folder in which one had to be made, is fsynced before the write
    counts as done.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._parts = self.root / _PARTS
        self._part_files = PartFiles(self._parts)
        try:
            self.root.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            self._parts.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            if not (self.root / _LAYOUT).exists():
                self._lay_out()
        except OSError as error:
            raise StoreError(f"Cannot make the store's directory: {error.strerror}") from None

    def _lay_out(self) -> None:
        """Move what was written before there were shards. Safe to stop and repeat anywhere."""
        with self._alone():
            for path in self._files(self.root):
                key = sharding.key_of(path.relative_to(self.root).as_posix())
                place = self.root / sharding.path_of(key)
                if place != path:
                    _make(place.parent)
                    path.rename(place)
                    self._remove_empty(path)
            (self.root / _LAYOUT).write_bytes(_SHARDED)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep out others who replace, move or delete what is there."""
        with (self._parts / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _path(self, key: str) -> Path:
        if not key or any(part in ("", ".", "..", _PARTS, _LAYOUT) for part in key.split("/")):
            raise ValueError("not a key")
        return self.root / sharding.path_of(key)

    @override
    def get(self, key: str) -> bytes:
        with _disk(key):
            return self._path(key).read_bytes()

    @override
    def put(self, key: str, data: bytes) -> None:
        self._write(key, data, replace=True)

    @override
    def put_if_absent(self, key: str, data: bytes) -> bool:
        if self.exists(key):
            return False
        return self._write(key, data, replace=False)

    @override
    def replace(self, key: str, expected: bytes, data: bytes) -> bool:
        with _disk(key), self._alone():  # nobody else writes what is there
            try:
                if self._path(key).read_bytes() != expected:
                    return False
            except FileNotFoundError:
                return False
            return self._write(key, data, replace=True)

    def _write(self, key: str, data: bytes, *, replace: bool) -> bool:
        path = self._path(key)
        with _disk(key):
            return self._write_aside(path, self._part_files.new(), data, replace)

    def _write_aside(self, path: Path, part: Path, data: bytes, replace: bool) -> bool:
        changed = [path.parent]
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            while True:
                changed += _make(path.parent)
                try:
                    part.replace(path) if replace else path.hardlink_to(part)
                except FileExistsError:
                    return False
                except FileNotFoundError:
                    if not part.exists():
                        raise StoreError("What was being written has been deleted meanwhile") from None
                    continue  # the last object of the folder was deleted, and the folder with it, meanwhile
                break
            for folder in changed:
                _fsync_directory(folder)
            return True
        finally:
            self._part_files.discard(part)

    @override
    def delete(self, key: str) -> None:
        path = self._path(key)
        with _disk(key), self._alone(), suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()  # not while it is being replaced: what is deleted must not come back
        self._remove_empty(path)

    def _remove_empty(self, path: Path) -> None:
        """Remove the folders that are empty without a file, but the few that are filled again at once."""
        below = path.name
        with suppress(OSError):  # not empty, or another process was quicker
            for folder in path.parents:
                depth = len(folder.relative_to(self.root).parts)
                if depth < 2 or (depth == 2 and sharding.is_shard(folder.name, below)):
                    break
                folder.rmdir()
                below = folder.name

    @override
    def list(self, prefix: str) -> Iterator[Entry]:
        head, slash, begin = prefix.rpartition("/")
        for path in self._files(self.root / sharding.path_of(head) if slash else self.root, begin):
            key = sharding.key_of(path.relative_to(self.root).as_posix())
            if not key.startswith(prefix):
                continue
            with _disk(key), suppress(FileNotFoundError):  # deleted while we walk
                yield Entry(key, datetime.fromtimestamp(path.stat().st_mtime, UTC))

    def _files(self, folder: Path, begin: str = "") -> Iterator[Path]:
        """Yield the files below a folder in order, passing over folders that have no name beginning so."""
        try:
            with _disk(str(folder)), os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except NoSuchObject:  # deleted while we walk
            return
        for entry in entries:
            whole = entry.name.startswith(begin)
            if entry.name in (_PARTS, _LAYOUT) or not (whole or begin.startswith(entry.name)):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._files(folder / entry.name, "" if whole else begin)
            elif entry.is_file():
                yield folder / entry.name

    @override
    def unfinished(self, seconds: float) -> Iterator[str]:
        with _disk(_PARTS):
            parts = list(self._part_files.left_behind(seconds))
        yield from (part.relative_to(self.root).as_posix() for part in parts)

    @override
    def drop_unfinished(self, seconds: float) -> None:
        with _disk(_PARTS):
            self._part_files.drop_left_behind(seconds)

    @override
    def _ask_clock(self) -> float:
        """Return the time of a new file, by the file system's clock."""
        with _disk(_PARTS):
            part = self._part_files.new()
            part.touch(mode=_FILE_MODE)
            modified = part.stat().st_mtime
            part.unlink()
        return modified

    @override
    def size(self, key: str) -> int:
        with _disk(key):
            return self._path(key).stat().st_size

    @override
    def exists(self, key: str) -> bool:
        try:
            with _disk(key):
                return stat.S_ISREG(self._path(key).stat().st_mode)
        except NoSuchObject:
            return False


@contextmanager
def _disk(key: str) -> Iterator[None]:
    """Turn whatever a disk may say into the store's errors."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NoSuchObject(key) from None
    except OSError as error:
        kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreError
        raise kind(f"The store's disk failed: {error.strerror}") from error


def _make(folder: Path) -> list[Path]:
    """Create the folder if it doesn't exist. Return the folders that have a new entry by that."""
    try:
        folder.mkdir(mode=_FOLDER_MODE)
    except FileExistsError:
        return []
    except FileNotFoundError:
        return [*_make(folder.parent), *_make(folder)]
    return [folder.parent]


def _fsync_directory(path: Path) -> None:
    with suppress(FileNotFoundError):  # deleted again already; then there is nothing to keep
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
