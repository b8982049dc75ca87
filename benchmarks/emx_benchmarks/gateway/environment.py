"""Installs the peers into a Python environment of their own, without any of our packages."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from emx_benchmarks.gateway.system import MeasuredSystem

_INSTALL_SECONDS = 600
_VERSION = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"


class NotInstalled(Exception):
    """A package can't be installed. The text says why, in a line."""


def cache() -> Path:
    """Return the cache folder, ``$XDG_CACHE_HOME/explainmyxray``, which may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "explainmyxray"


class PeerEnvironment:
    """A virtual environment for the peers. It is made on first use, and keeps what is installed.

    Attributes:
        folder: of the environment.
        python: its interpreter.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        """Name the folder. ``say`` shows a line of progress to the user."""
        self.folder, self._say = folder, say
        self.python = folder / "bin" / "python"

    def install(self, peers: Sequence[MeasuredSystem]) -> dict[str, str]:
        """Install peers, and set each one's version.

        Returns:
            Why peers are absent, by their names.
        """
        absent: dict[str, str] = {}
        try:
            if not self.python.exists():
                self._say(f"Making {self.folder}")
                _run([sys.executable, "-m", "venv", str(self.folder)])
            for peer in peers:
                try:
                    peer.version = self._require(peer.requirements)
                except NotInstalled as error:
                    absent[peer.name] = f"not installed: {error}"
        except NotInstalled as error:
            return {peer.name: f"no environment: {error}" for peer in peers}
        return absent

    def _require(self, requirements: tuple[str, ...]) -> str:
        mark = self.folder / f"{'+'.join(requirements)}.installed"
        if not mark.exists():
            self._say(f"Installing {' and '.join(requirements)} into {self.folder} (once)")
            pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([*pip, "--retries", "1", "--timeout", "15", *requirements])
            mark.touch()
        distribution = requirements[0].partition("[")[0]
        return _run([str(self.python), "-c", _VERSION, distribution]).strip()


def _run(command: list[str]) -> str:
    """Run a command, and return its output. Raises NotInstalled."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(str(error)[:200]) from None
    if ran.returncode:
        said = [line for line in ran.stderr.splitlines() if "ERROR" in line] or ran.stderr.splitlines() or ["?"]
        raise NotInstalled(said[-1][:200])
    return ran.stdout
