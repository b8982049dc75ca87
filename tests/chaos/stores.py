"""The store under test, and the faults that it can have: a directory on a disk of its own, or SeaweedFS."""

import ctypes
import os
import signal
import sysconfig
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Literal, Self

from emx_shared.store import StoreError
from emx_shared.store.s3 import S3Store
from explainmyxray.supervisor import free_port
from tests.chaos.fault_folder import FaultFolder
from tests.chaos.launcher_process import Order
from tests.chaos.managed_process import Launcher, ManagedProcess
from tests.chaos.product_faults import CUT
from tests.chaos.store_proxy import CutWrites, Delay, Drop, ProxyFault, Refuse, StoreProxy

StoreFault = Literal["read-only", "full", "failing", "slow", "cut", "killed", "paused", "away"]

_BUCKET = "chaos"
_SLOW_SECONDS = 0.2
_CUTS = 6
"""Processes that die inside a write, one after the other."""

_DISK_BYTES = 256 * 2**20
_MS_REC, _MS_PRIVATE, _MNT_DETACH, _CLONE_NEWNS = 1 << 14, 1 << 18, 2, 1 << 17
_START_SECONDS = 60.0
_LOCKS = ("lock", "alive")
"""Files that are no writes: of processes that replace objects, and of each that writes."""


class StoreUnderTest(ABC):
    """A store that runs while it is entered.

    Attributes:
        name: as ``--store`` says.
        environment: settings with which the product's processes use it.
        disk: its folder, of a store in a folder.
        impossible: faults that it can't have, and why.
    """

    name: str
    environment: dict[str, str]
    disk: Path | None = None
    impossible: Mapping[StoreFault, str] = {}

    @abstractmethod
    def __enter__(self) -> Self:
        """Start the store."""

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """Stop it and take everything of it away."""

    @property
    @abstractmethod
    def address(self) -> str:
        """EMX_STORE for the harness itself, which looks past all faults that can be passed."""

    @abstractmethod
    def broken(self, fault: StoreFault) -> AbstractContextManager[str]:
        """Have a fault while it is entered, which returns what it is here."""

    @abstractmethod
    def unfinished_writes(self) -> list[str]:
        """Return what writes left behind that were never finished."""


class DirectoryUnderTest(StoreUnderTest):
    """A directory on a disk of its own: a file system in memory, where this user may mount one."""

    name = "directory"
    impossible: Mapping[StoreFault, str] = {"killed": "a directory has no server to kill; see store-failing"}

    def __init__(self, folder: Path, faults: FaultFolder) -> None:
        self._mount, self._faults, self._mounted = folder / "disk", faults, False
        self.disk = self._mount / "store"
        self.environment = {"EMX_STORE": f"file:{self.disk}"}

    def __enter__(self) -> Self:
        self._mount.mkdir()
        self._mounted = _mount_memory(self._mount)
        return self

    def __exit__(self, *_: object) -> None:
        if self._mounted:
            _libc().umount2(os.fsencode(self._mount), _MNT_DETACH)

    @property
    def address(self) -> str:
        return self.environment["EMX_STORE"]

    @contextmanager
    def broken(self, fault: StoreFault) -> Iterator[str]:
        if fault == "full" and self._mounted:
            with self._filled():
                yield "its file system has no byte left (ENOSPC)"
        elif fault == "cut":
            with self._killed_inside_writes():
                yield "processes die between a write's bytes and its fsync"
        else:
            chosen, said = {
                "read-only": ("errno EROFS writes", "writes fail with EROFS"),
                "full": ("errno ENOSPC writes", "writes fail with ENOSPC"),
                "failing": ("errno EIO all", "reads and writes fail with EIO"),
                "away": ("errno ESTALE all", "reads and writes fail with ESTALE"),
                "slow": (f"slow {_SLOW_SECONDS / 10}", f"each system call takes {_SLOW_SECONDS / 10:g} s longer"),
                "paused": ("hang", "reads and writes hang"),
            }[fault]
            self._faults.break_disk(chosen)
            try:
                yield said
            finally:
                self._faults.mend_disk()

    def unfinished_writes(self) -> list[str]:
        assert self.disk
        parts = self.disk / ".parts"
        return [path.name for path in parts.rglob("*") if path.is_file() and path.name not in _LOCKS]

    @contextmanager
    def _filled(self) -> Iterator[None]:
        ballast = self._mount / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(2**20) if _free(self._mount) > 2**20 else bytes(4096))
                except OSError:
                    yield
        finally:
            ballast.unlink()

    @contextmanager
    def _killed_inside_writes(self) -> Iterator[None]:
        for _ in range(_CUTS):
            self._faults.arm(CUT)
            time.sleep(0.1)
        yield
        self._faults.disarm(CUT)


class SeaweedUnderTest(StoreUnderTest):
    """A real SeaweedFS server behind a proxy, through which the product's processes use it."""

    name = "s3"

    def __init__(self, folder: Path, launcher: Launcher) -> None:
        self._folder, self._launcher = folder / "seaweed", launcher
        names = ("s3.port", "master.port", "volume.port", "filer.port")
        grpc = ("s3.port.grpc", "master.port.grpc", "volume.port.grpc", "filer.port.grpc")
        self._ports = {name: free_port() for name in (*names, *grpc)}
        self._proxy = StoreProxy(self._ports["s3.port"])

    def __enter__(self) -> Self:
        self._folder.mkdir()
        self._proxy.__enter__()
        self.environment = {
            "EMX_STORE": f"s3+http://127.0.0.1:{self._proxy.port}/{_BUCKET}",
            "EMX_S3_ACCESS_KEY": "any",
            "EMX_S3_SECRET_KEY": "any",
        }
        self._server = ManagedProcess("seaweedfs", self._launcher, self._order())
        self._wait_until_it_answers()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._proxy.__exit__()

    @property
    def address(self) -> str:
        return f"s3+http://127.0.0.1:{self._ports['s3.port']}/{_BUCKET}"

    @contextmanager
    def broken(self, fault: StoreFault) -> Iterator[str]:
        if fault == "killed":
            self._server.kill()
            try:
                yield "its server is killed with SIGKILL"
            finally:
                self._server.start()
                self._wait_until_it_answers()
        elif fault == "paused":
            self._server.send(signal.SIGSTOP)
            try:
                yield "its server is stopped with SIGSTOP"
            finally:
                self._server.send(signal.SIGCONT)
        else:
            self._proxy.fault, said = _PROXY_FAULTS[fault]
            try:
                yield said
            finally:
                self._proxy.fault = None

    def unfinished_writes(self) -> list[str]:
        return []

    def _order(self) -> Order:
        weed = Path(sysconfig.get_path("scripts")) / "weed"
        command = [
            *(str(weed), f"-logdir={self._folder}", "server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *("-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=200"),
            *("-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"),  # a restart takes 4 s, else 15
            *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-dir={self._folder}"),
            *(f"-{name}={port}" for name, port in self._ports.items()),
        ]
        return Order(command=command, log=str(self._folder / "log"))

    def _wait_until_it_answers(self) -> None:
        address = f"127.0.0.1:{self._ports['s3.port']}"
        store = S3Store(address, _BUCKET, "any", "any", "us-east-1", secure=False)
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                store.check()
                store.put("probe/{_BUCKET}", b"")
                store.delete("probe/chaos")
                return
            except StoreError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)


_PROXY_FAULTS: dict[StoreFault, tuple[ProxyFault, str]] = {
    "read-only": (Refuse(HTTPStatus.FORBIDDEN, "AccessDenied", True), "writes are answered 403"),
    "full": (Refuse(HTTPStatus.INSUFFICIENT_STORAGE, "QuotaExceeded", True), "writes are answered 507"),
    "failing": (Refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError", False), "every request is answered 500"),
    "slow": (Delay(_SLOW_SECONDS), f"each request takes {_SLOW_SECONDS:g} s longer"),
    "cut": (CutWrites(), "two of three PUTs are cut, in turn at four places"),
    "away": (Drop(), "connections are closed without an answer"),
}


def keep_mounts_to_this_process() -> None:
    """Let what this process mounts from now on be seen by its children alone, and vanish with them.

    Where this user may not do that, they may not mount either, and a disk's faults come from ``product_faults``.
    """
    if _libc().unshare(_CLONE_NEWNS) == 0:
        _libc().mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount_memory(folder: Path) -> bool:
    options = f"size={_DISK_BYTES},mode=700".encode()
    return bool(_libc().mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options) == 0)


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


MakeStore = Callable[[Path, FaultFolder, Launcher], StoreUnderTest]
STORES: dict[str, MakeStore] = {
    "directory": lambda folder, faults, _: DirectoryUnderTest(folder, faults),
    "s3": lambda folder, _, launcher: SeaweedUnderTest(folder, launcher),
}
