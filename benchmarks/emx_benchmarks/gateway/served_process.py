"""Runs a server as a child process, together with all processes that it starts itself."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

_GRACE_SECONDS = 10.0


class NotServing(Exception):
    """A server didn't start. The text says why, as far as that is known."""


class ServedProcess:
    """A server in a process session of its own, so that nothing that it started outlives it.

    Attributes:
        log: file with its output.
    """

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, folder: Path) -> None:
        """Start the process.

        Args:
            command: to run.
            environment: variables beside those of this process.
            log: file for its output.
            folder: its working directory.

        Raises:
            OSError: if the command can't be run.
        """
        self.log = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def check(self) -> None:
        """Check that the process is running. Raises NotServing if it has ended."""
        if self._process.poll() is not None:
            raise NotServing(self.last_log_line())

    def wait(self, seconds: float) -> None:
        """Wait for the end of the process, for so many seconds at most."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def last_log_line(self) -> str:
        """Return the last line that the process wrote, cut to 200 characters."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][-200:] if lines else f"it ended with status {self._process.returncode} and without output"

    def pause(self) -> None:
        """Stop all its processes until ``resume``."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let its processes run again after ``pause``."""
        self._signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask its processes to end."""
        self.resume()
        self._signal(signal.SIGTERM)

    def stop(self) -> None:
        """Wait for its end after ``terminate``, then kill what is left of it."""
        self.wait(_GRACE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it at once, where nothing that it was doing is worth a wait."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
