"""Files that are written aside before they are moved into place, and what stays of them when their writer dies."""

import fcntl
import os
import shutil
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ALIVE = "alive"
_FOLDER_MODE = 0o700
_LONGEST_WRITE = 3600.0
"""Seconds after which a write has failed, even if its process seems to live."""

_TRY_AGAIN = 1.0
"""Seconds between tries to delete what a disk refused to delete."""


class PartFiles:
    """The parts of one process, in a folder of its own that is locked for as long as it lives.

    So others can tell what a dead process left behind from what is being written.
    """

    def __init__(self, root: Path) -> None:
        """Set the folder that has those of all processes."""
        self._root = root
        self._own: Path | None = None
        self._lock = threading.Lock()
        self._undeleted: set[Path] = set()

    def new(self) -> Path:
        """Return the path of a new part. Raises OSError."""
        with self._lock:
            if self._own is None or not self._own.exists():
                self._own = self._make_own()
            return self._own / uuid.uuid4().hex

    def _make_own(self) -> Path:
        """Make a folder that nobody sees before it is locked."""
        folder, unseen = (self._root / f"{prefix}{uuid.uuid4().hex}" for prefix in ("", "."))
        unseen.mkdir(mode=_FOLDER_MODE)
        alive = os.open(unseen / _ALIVE, os.O_WRONLY | os.O_CREAT, 0o600)
        weakref.finalize(self, os.close, alive)
        fcntl.flock(alive, fcntl.LOCK_EX)
        unseen.rename(folder)
        return folder

    def discard(self, part: Path) -> None:
        """Delete a part, if it is still there; where the disk refuses, as soon as it doesn't."""
        try:
            part.unlink(missing_ok=True)
        except OSError:
            with self._lock:
                if not self._undeleted:
                    threading.Thread(target=self._delete_later, name="parts", daemon=True).start()
                self._undeleted.add(part)

    def _delete_later(self) -> None:
        while True:
            time.sleep(_TRY_AGAIN)
            with self._lock:
                for part in list(self._undeleted):
                    with suppress(OSError):
                        part.unlink(missing_ok=True)
                        self._undeleted.discard(part)
                if not self._undeleted:
                    return

    def left_behind(self, seconds: float) -> Iterator[Path]:
        """Yield the parts of processes that are gone, and others that are so old, but an hour at least.

        Raises OSError.
        """
        for found in sorted(self._root.iterdir()):
            if found.is_dir():
                oldest = -1.0 if self._is_gone(found) else max(seconds, _LONGEST_WRITE)
                yield from (part for part in _files(found) if _age(part) > oldest)
            elif found.name != "lock" and _age(found) > seconds:  # of a version that had no folders
                yield found

    def drop_left_behind(self, seconds: float) -> None:
        """Delete what ``left_behind`` yields, and the folders of processes that are gone. Raises OSError."""
        for part in self.left_behind(seconds):
            part.unlink(missing_ok=True)
        for folder in self._root.iterdir():
            if folder.is_dir() and self._is_gone(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def _is_gone(self, folder: Path) -> bool:
        """Return whether the process whose folder this is has ended, as far as its lock can tell.

        One that is being made isn't locked yet.
        """
        if folder.name.startswith(".") and _age(folder) <= _LONGEST_WRITE:
            return False
        try:
            with (folder / _ALIVE).open("rb") as alive:
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        except OSError:  # it holds it, or has no locks
            return False


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(part for part in folder.iterdir() if part.name != _ALIVE)
    except FileNotFoundError:  # somebody else was quicker
        return []


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # it was finished meanwhile
        return 0.0
