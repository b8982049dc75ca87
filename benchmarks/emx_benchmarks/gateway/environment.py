"""The Python environment that has the peers, and nothing of ours."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from emx_benchmarks.gateway.system import System

_PATIENCE = 600
_VERSION = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"


class NotInstalled(Exception):
    """Why, in a line."""


def cache() -> Path:
    """``$XDG_CACHE_HOME/explainmyxray``, which may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "explainmyxray"


class Environment:
    """Made on first use; what it has by then, it keeps."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self._say = folder, say
        self.python = folder / "bin" / "python"

    def install(self, peers: Sequence[System]) -> dict[str, str]:
        """Sets each peer's version. Returns why the others aren't there, by their names."""
        absent: dict[str, str] = {}
        try:
            if not self.python.exists():
                self._say(f"Making {self.folder}")
                _run([sys.executable, "-m", "venv", str(self.folder)])
            for peer in peers:
                try:
                    peer.version = self._have(peer.requirements)
                except NotInstalled as error:
                    absent[peer.name] = f"not installed: {error}"
        except NotInstalled as error:
            return {peer.name: f"no environment: {error}" for peer in peers}
        return absent

    def _have(self, requirements: tuple[str, ...]) -> str:
        mark = self.folder / f"{requirements[0]}.installed"
        if not mark.exists():
            self._say(f"Installing {' and '.join(requirements)} into {self.folder} (once)")
            pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([*pip, "--retries", "1", "--timeout", "15", *requirements])
            mark.touch()
        distribution = requirements[0].partition("[")[0]
        return _run([str(self.python), "-c", _VERSION, distribution]).strip()


def _run(command: list[str]) -> str:
    """Its output. Raises NotInstalled."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(str(error)[:200]) from None
    if ran.returncode:
        said = [line for line in ran.stderr.splitlines() if "ERROR" in line] or ran.stderr.splitlines() or ["?"]
        raise NotInstalled(said[-1][:200])
    return ran.stdout
