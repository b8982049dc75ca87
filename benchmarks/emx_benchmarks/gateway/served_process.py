"""A process that serves, with all that it starts itself."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

_GRACE = 10.0


class NotServing(Exception):
    """It didn't start; the text says why, as far as that is known."""


class Server:
    """A session of its own, so that nothing that it started outlives it."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, folder: Path) -> None:
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
        """Raises NotServing if it has ended."""
        if self._process.poll() is not None:
            raise NotServing(self.last_words())

    def wait(self, seconds: float) -> None:
        """For its end, at most so long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][-200:] if lines else f"it ended with {self._process.returncode} and no word"

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def leave(self) -> None:
        """Begin to stop."""
        self.go_on()
        self._signal(signal.SIGTERM)

    def stop(self) -> None:
        """After ``leave``: wait for its end, then kill what is left of it."""
        self.wait(_GRACE)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
