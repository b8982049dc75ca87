"""Processes of the system under test: started, signalled, and started again when they die."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.chaos.background import Background
from tests.chaos.launcher_process import Order

_DEAD_SECONDS = 0.05
"""A process that died is started again after so long."""

_WAIT_SECONDS = 15.0


class Launcher:
    """Starts processes while it is entered: see ``launcher_process``. They all end with it."""

    def __init__(self, folder: Path, root: Path, preload: bool) -> None:
        """Begin to start; ``launch`` waits for that.

        Args:
            folder: working directory of all processes, for their logs and temporary files.
            root: of the clone.
            preload: whether to import what the product's processes need.
        """
        self._log = (folder / "launcher.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.launcher_process", *(["preload"] if preload else [])],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(root), "TMPDIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        self._ready = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def launch(self, order: Order) -> int:
        """Start a process and return its id. Raises ChildProcessError."""
        with self._lock:
            assert self._process.stdin and self._process.stdout
            if not self._ready:
                self._read()
                self._ready = True
            self._process.stdin.write(f"{order.model_dump_json()}\n")
            self._process.stdin.flush()
            return int(self._read())

    def _read(self) -> str:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return line
        raise ChildProcessError(f"The launcher died: see {self._log.name}")


class ManagedProcess:
    """One process, which is another's child. Signals go to its descriptor: its id might be reused."""

    def __init__(self, name: str, launcher: Launcher, order: Order) -> None:
        """Start the process; ``name`` is such as gateway-1."""
        self.name = name
        self.wanted = True
        self.starts = 0
        self._launcher, self._order = launcher, order
        self._died_at: float | None = None
        self._descriptor: int | None = None
        self._lock = threading.Lock()
        self.start()

    @property
    def is_alive(self) -> bool:
        """Whether it is running."""
        if self._descriptor is None:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return not poll.poll(0)

    def start(self) -> None:
        """Start it if it isn't running, and keep it running from now on."""
        with self._lock:
            self.wanted = True
            if not self.is_alive:
                self._start()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal it, and don't start it again until ``start``."""
        self.wanted = False
        self.send(number)

    def send(self, number: signal.Signals) -> None:
        """Signal it if it is running."""
        if self._descriptor is not None:
            try:
                signal.pidfd_send_signal(self._descriptor, number)
            except ProcessLookupError:
                return

    def wait(self, seconds: float = _WAIT_SECONDS) -> None:
        """Wait for its end, for so many seconds at most."""
        until = time.monotonic() + seconds
        while self.is_alive and time.monotonic() < until:
            time.sleep(0.02)

    def restart_if_dead(self) -> None:
        """Start it again if it has died by itself or at a fault point."""
        with self._lock:
            if not self.wanted or self.is_alive:
                self._died_at = None
                return
            self._died_at = self._died_at or time.monotonic()
            if time.monotonic() - self._died_at > _DEAD_SECONDS:
                self._start()

    def stop(self) -> None:
        """End it for good."""
        self.kill()
        self.wait()

    def _start(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._died_at, self._descriptor = None, None
        self.starts += 1
        try:
            self._descriptor = os.pidfd_open(self._launcher.launch(self._order))
        except ProcessLookupError:  # it has ended already
            return


class Restarter(Background):
    """A thread that starts dead processes again while it is entered."""

    def __init__(self, processes: list[ManagedProcess]) -> None:
        super().__init__("restarter")
        self._processes = processes

    def _run(self) -> None:
        while not self._over.wait(0.03):
            for process in list(self._processes):
                process.restart_if_dead()
