"""A process of the system under test: started, signalled, and started again when it dies, as a supervisor would."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_DEAD_SECONDS = 0.05
"""A process that died is started again after so long."""

_WAIT_SECONDS = 15.0
"""For the end of a process that was asked to end, before it is killed."""


class ManagedProcess:
    """One process, which may be another's child. It is known by a descriptor, so that no reused id is signalled."""

    def __init__(self, name: str, launch: Callable[[], int]) -> None:
        """Start the process.

        Args:
            name: such as gateway-1.
            launch: starts it and returns its id.
        """
        self.name = name
        self.wanted = True
        self.starts = 0
        self._launch = launch
        self._died_at: float | None = None
        self._descriptor: int | None = None
        self._lock = threading.Lock()
        self.start()

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

    def wait(self, seconds: float = _WAIT_SECONDS) -> bool:
        """Wait for its end. Return whether it has ended."""
        until = time.monotonic() + seconds
        while self.is_alive:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

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
            self._descriptor = os.pidfd_open(self._launch())
        except ProcessLookupError:  # it has ended already
            return

    @property
    def is_alive(self) -> bool:
        """Whether it is running."""
        if self._descriptor is None:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return not poll.poll(0)


class ForkServer:
    """Starts the product's processes in hundredths of a second: see ``product_process``."""

    def __init__(self, folder: Path, root: Path) -> None:
        """Start to import what the processes need; ``fork`` waits for that.

        Args:
            folder: working directory of all processes.
            root: of the clone.
        """
        self._log = (folder / "fork-server.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.product_process"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(root)},
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

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def fork(self, order: str) -> int:
        """Fork a process as a line of JSON says, and return its id. Raises ChildProcessError."""
        with self._lock:
            assert self._process.stdin and self._process.stdout
            if not self._ready:
                self._read()
                self._ready = True
            self._process.stdin.write(f"{order}\n")
            self._process.stdin.flush()
            return int(self._read())

    def _read(self) -> str:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return line
        raise ChildProcessError(f"The fork server died: see {self._log.name}")


class Restarter:
    """A thread that starts dead processes again while it is entered."""

    def __init__(self, processes: list[ManagedProcess]) -> None:
        self._processes, self._over = processes, threading.Event()
        self._thread = threading.Thread(target=self._run, name="restarter")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.03):
            for process in list(self._processes):
                process.restart_if_dead()
