"""What is patched in a product's process before it runs, so that it has faults at its writes and on its disk.

Nothing of this is in the product itself.
"""

import builtins
import errno
import io
import os
import signal
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from emx_shared.store.directory import DirectoryStore
from emx_shared.store.s3 import S3Store
from tests.chaos.fault_folder import FaultFolder
from tests.chaos.writes import Act, FaultPoint, name_of

CUT = "inside-a-write"
"""Where a process dies that has written a part of an object, and hasn't synced it."""

_READS = ("stat", "lstat", "scandir", "listdir")
_WRITES = ("link", "rename", "replace", "unlink", "remove", "mkdir", "rmdir")
_WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def install(faults: FaultFolder, *, is_worker: bool, disk: Path | None) -> None:
    """Patch both stores of this process.

    Args:
        faults: says which faults there are at any moment.
        is_worker: whether it dies of poison.
        disk: the folder of a store in a folder; its disk has faults too.
    """
    methods: tuple[tuple[str, Act], ...] = (
        ("put", "write"),
        ("put_if_absent", "write"),
        ("replace", "write"),
        ("delete", "delete"),
    )
    for store in (DirectoryStore, S3Store):
        for method, act in methods:
            setattr(store, method, _mortal(getattr(store, method), act, faults))
        if is_worker:
            store.get = _poisoned(store.get, faults)  # type: ignore[method-assign]
    if disk:
        _break_disk(disk, faults)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _mortal(method: Callable[..., Any], act: Act, faults: FaultFolder) -> Callable[..., Any]:
    """Return a store's method that dies at armed points."""

    @wraps(method)
    def deadly(self: object, key: str, *args: Any, **options: Any) -> Any:
        name = name_of(key)
        if name and faults.claim(FaultPoint("before", act, name)):
            _die()
        done = method(self, key, *args, **options)
        if name and done is not False and faults.claim(FaultPoint("after", act, name)):
            _die()
        return done

    return deadly


def _poisoned(get: Callable[..., bytes], faults: FaultFolder) -> Callable[..., bytes]:
    @wraps(get)
    def deadly(self: object, key: str) -> bytes:
        if name_of(key) == "input" and faults.is_poison(key.rpartition("-")[2]):
            _die()
        return get(self, key)

    return deadly


def _break_disk(folder: Path, faults: FaultFolder) -> None:
    """Give faults to what asks the system about files below a folder.

    A fault is one of ``errno NAME all``, ``errno NAME writes``, ``slow SECONDS``, ``hang``.
    """
    root, fault_of = f"{folder}", faults.disk_fault

    def suffer(writes: bool) -> None:
        while fault := fault_of():
            kind, _, rest = fault.partition(" ")
            if kind == "hang":
                time.sleep(0.05)
                continue
            if kind == "slow":
                time.sleep(float(rest))
            name, _, which = rest.partition(" ")
            if kind == "errno" and (writes or which == "all"):
                raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
            return

    def broken(function: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
        @wraps(function)
        def call(path: Any, *args: Any, **options: Any) -> Any:
            if isinstance(path, int) or options.get("dir_fd") or os.fspath(path).startswith(root):
                suffer(writes(*args, **options))
            return function(path, *args, **options)

        return call

    def writes_flags(flags: int = 0, *_: Any, **__: Any) -> bool:
        return bool(flags & _WRITING_FLAGS)

    def writes_mode(mode: str = "r", *_: Any, **__: Any) -> bool:
        return mode.strip("bt") != "r"

    real_fsync = os.fsync

    def fsync(fd: Any) -> None:
        if faults.claim(CUT):
            _die()
        suffer(writes=True)
        real_fsync(fd)

    for name in _READS:
        setattr(os, name, broken(getattr(os, name), lambda *_, **__: False))
    for name in _WRITES:
        setattr(os, name, broken(getattr(os, name), lambda *_, **__: True))
    os.fsync = fsync
    os.open = broken(os.open, writes_flags)
    opened = broken(io.open, writes_mode)

    def open_path(file: Any, *args: Any, **options: Any) -> Any:
        return io_open(file, *args, **options) if isinstance(file, int) else opened(file, *args, **options)

    io_open = io.open
    io.open = builtins.open = open_path
