"""The blocking client is what the script makes of the asyncio client."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

SCRIPT = Path("scripts") / "generate_sync_client.py"
CLIENT = Path("explainmyxray") / "client"


def generate(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, root / SCRIPT, *arguments], capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The script and the client in a clone of their own."""
    for name in (SCRIPT.parent, CLIENT):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_committed_files_are_up_to_date() -> None:
    checked = generate(ROOT, "--check")
    assert checked.returncode == 0, checked.stderr


def test_files_that_differ_are_named_with_the_command_that_writes_them(copy: Path) -> None:
    sync = copy / CLIENT / "_sync"
    (sync / "jobs.py").write_text("changed by hand\n")
    (sync / "uploads.py").unlink()
    (sync / "left_over.py").touch()
    checked = generate(copy, "--check")
    assert checked.returncode == 1
    for text in (
        "jobs.py differs",
        "uploads.py is missing",
        "left_over.py",
        "python scripts/generate_sync_client.py",
    ):
        assert text in checked.stderr
    assert generate(copy).returncode == 0
    assert generate(copy, "--check").returncode == 0
    assert (sync / "jobs.py").read_bytes() == (ROOT / CLIENT / "_sync" / "jobs.py").read_bytes()
    assert not (sync / "left_over.py").exists()


def test_an_asynchronous_word_that_has_no_substitution_is_named(copy: Path) -> None:
    jobs = copy / CLIENT / "_async" / "jobs.py"
    jobs.write_text(jobs.read_text() + "\n\nlock = asyncio.Lock()\n")
    made = generate(copy)
    assert made.returncode == 1
    assert "No substitution for `asyncio.Lock`" in made.stderr


def test_a_wrong_argument_shows_the_usage() -> None:
    assert generate(ROOT, "--chekc").returncode == 2


def test_no_asynchronous_word_is_left() -> None:
    text = "".join(path.read_text() for path in (ROOT / CLIENT / "_sync").glob("*.py") if path.stem != "__init__")
    for word in ("async ", "await", "asyncio.", "Async"):
        assert word not in text.replace("../_async/", "")
