"""Generates the blocking client from the asyncio client, as httpcore does.

    python scripts/generate_sync_client.py            # writes explainmyxray/client/_sync
    python scripts/generate_sync_client.py --check    # exit code 1 if the files there are out of date

Change only explainmyxray/client/_async, then run the first command. It needs ruff.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLIENT = Path("explainmyxray") / "client"
COMMAND = "python scripts/generate_sync_client.py"
HEADER = f"""# Generated from ../_async/{{name}} by: {COMMAND}
# Don't edit this file: change that one, and run the command.
"""

SUBSTITUTIONS = [
    (r"The asyncio client, written by hand\. The blocking client in ``_sync`` is generated from it\.",
     "The blocking client, generated from the asyncio client beside it."),
    (r"for asyncio programs", "for programs that wait for each answer"),
    (r"Tasks of one event loop may share a client", "Threads may share a client"),
    (r"asyncio\.sleep", "time.sleep"),
    (r"import asyncio\b", "import time"),
    (r"\basync_file_bytes\b", "file_bytes"),
    (r"\b_async\b", "_sync"),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\basync (?=def|for|with)", ""),
    (r"\bawait ", ""),
    (r"\b__a(?=enter__|exit__|iter__|next__)", "__"),
    (r"\ba(?=close\b|read\(\)|iter_bytes\b)", ""),
]  # fmt: skip
"""Regular expressions and what they become, in this order."""

_FIXES = [
    *("--select", "I,UP028", "--fix", "--unsafe-fixes"),
    *("--config", 'lint.isort.known-first-party = ["emx_shared", "explainmyxray"]'),
]
"""Sort imports, whichever folders exist; and turn loops that only yield into ``yield from``."""

_ASYNC_WORD = re.compile(r"\b(async|asyncio\.\w+|await|Async[A-Z]\w*|aiter\w*|anext|aclosing)\b")


def generate(root: Path = ROOT) -> dict[Path, str]:
    """Return the text of each generated file by its path."""
    sources = sorted((root / CLIENT / "_async").glob("*.py"))
    return {root / CLIENT / "_sync" / source.name: _to_sync(source, root) for source in sources}


def outdated(files: dict[Path, str]) -> list[str]:
    """List what differs from the generated files: missing, changed or superfluous files."""
    folder = next(iter(files)).parent
    present = set(folder.glob("*.py"))
    found = [f"{path.name} is missing" for path in sorted(files.keys() - present)]
    found += [f"{path.name} has no source in _async" for path in sorted(present - files.keys())]
    same = sorted(files.keys() & present)
    return found + [f"{path.name} differs" for path in same if path.read_text(encoding="utf-8") != files[path]]


def write(files: dict[Path, str]) -> None:
    """Write the generated files, and delete files that no longer have a source."""
    folder = next(iter(files)).parent
    folder.mkdir(exist_ok=True)
    for path in set(folder.glob("*.py")) - files.keys():
        path.unlink()
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    files = generate()
    if not arguments:
        write(files)
        return 0
    if problems := outdated(files):
        print(f"The blocking client is out of date: {'; '.join(problems)}. Run: {COMMAND}", file=sys.stderr)
        return 1
    return 0


def _to_sync(source: Path, root: Path) -> str:
    text = source.read_text(encoding="utf-8")
    for pattern, replacement in SUBSTITUTIONS:
        text = re.sub(pattern, replacement, text)
    if left := _ASYNC_WORD.search(text):
        raise SystemExit(f"No substitution for `{left[0]}` in {source}. Add it to SUBSTITUTIONS in {__file__}.")
    text = HEADER.format(name=source.name) + text
    target = str(root / CLIENT / "_sync" / source.name)
    text = _ruff(["check", *_FIXES, "--quiet", "--stdin-filename", target, "-"], text, root)
    return _ruff(["format", "--quiet", "--stdin-filename", target, "-"], text, root)


def _ruff(arguments: list[str], text: str, root: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments], input=text, capture_output=True, encoding="utf-8", cwd=root
    )
    if done.returncode:
        raise SystemExit(f"ruff failed: {done.stderr}Install it: pip install ruff")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
