"""Write the requirements files: every version that the extras of pyproject.toml need, as installed here.

``python scripts/lock_requirements.py`` writes them anew; with ``--check`` nothing is written, and the exit code is
1 where a file differs. To take newer versions, install them first: ``pip install --upgrade -e '.[dev]'``.
"""

import argparse
import importlib.metadata
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    "requirements.txt": "local",
    "requirements-gateway.txt": "gateway",
    "requirements-worker.txt": "worker",
    "requirements-dev.txt": "dev",
}
"""Each file's extra."""

OURS = "explainmyxray"

_OF_ONE_BUILD = ("nvidia-", "cuda-", "triton")
"""What torch needs in its build for CUDA alone. Which build is taken is the index's affair."""


class OurRequirements:
    """What pyproject.toml asks for, extra by extra."""

    def __init__(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        self._base = [Requirement(text) for text in project["dependencies"]]
        self._extras = {
            extra: [Requirement(text) for text in texts]
            for extra, texts in project["optional-dependencies"].items()
        }

    def of(self, extras: frozenset[str]) -> list[Requirement]:
        """Return the requirements of the base and of these extras."""
        return [*self._base, *(needed for extra in extras for needed in self._extras[extra])]


def locked(extra: str) -> list[str]:
    """Return the lines of an extra's file, sorted by name.

    Raises:
        PackageNotFoundError: something that the extra needs isn't installed.
    """
    ours, lines, seen = OurRequirements(), dict[str, str](), set[tuple[str, frozenset[str]]]()
    todo: list[tuple[str, frozenset[str], str]] = [(OURS, frozenset({extra}), "")]
    while todo:
        name, extras, marker = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name == OURS:
            for needed in ours.of(extras):
                todo.append((_name(needed), frozenset(needed.extras), str(needed.marker or "")))
            continue
        if name.startswith(_OF_ONE_BUILD):
            continue
        distribution = importlib.metadata.distribution(name)
        # Without the local part: which build of torch is taken is the index's affair.
        line = f"{distribution.metadata['Name']}=={Version(distribution.version).public}"
        lines[name] = f"{line}; {marker}" if marker else line
        for needed in map(Requirement, distribution.requires or []):
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in (*extras, "")):
                todo.append((_name(needed), frozenset(needed.extras), ""))
    return [lines[name] for name in sorted(lines)]


def _name(requirement: Requirement) -> str:
    return str(canonicalize_name(requirement.name))


def main() -> None:
    """Write or check the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a file differs")
    check = parser.parse_args().check
    stale = []
    for file, extra in FILES.items():
        text = "\n".join(locked(extra)) + "\n"
        path = ROOT / file
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(file)
            if not check:
                path.write_text(text, encoding="utf-8")
    if check and stale:
        sys.exit(f"Not what is installed: {', '.join(stale)}. Run: python scripts/lock_requirements.py")
    print(f"Written: {', '.join(stale)}" if stale else "All requirements files are up to date.")


if __name__ == "__main__":
    main()
