"""Every command of the README and of the quickstart, in their order, as a newcomer pastes them into a shell.

The system is the one that their own first command starts, in a copy of the clone.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from explainmyxray.supervisor import free_port
from support.documents import DOCS, ROOT, blocks

START = "./run.sh"
README, QUICKSTART = ROOT / "README.md", DOCS / "quickstart.md"
_DONE = "emx-readme-done"


@dataclass
class Newcomer:
    """Somebody with a fresh clone, in which the packages are installed already.

    Attributes:
        clone: a copy of the clone's files.
        port: where the system listens.
    """

    clone: Path
    port: int

    def another_clone(self, folder: Path) -> Path:
        shutil.copytree(self.clone, folder, symlinks=True, ignore=shutil.ignore_patterns("data"))
        return folder


def clone(folder: Path) -> Path:
    """Copy what git has, and lend the environment of the tests, as if ``run.sh`` had installed it."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    lent = folder / ".venv"
    lent.mkdir()
    for part in Path(sys.prefix).iterdir():
        if not part.name.startswith(".installed"):
            (lent / part.name).symlink_to(part)
    (lent / ".installed-run").touch()
    return folder


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    folder, port = clone(tmp_path_factory.mktemp("newcomer") / "clone"), free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EMX_")}
    command = [START, "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=folder, env=kept, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout
    printed = ""
    for line in process.stdout:
        printed += line
        if "Ctrl-C stops everything" in line:
            break
    assert "FINDINGS" in printed and "Workstation:" in printed, printed
    yield Newcomer(folder, port)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    process.stdout.close()


def commands(document: Path) -> str:
    """The commands of a document, all but the first: what that one starts is running."""
    code = "\n".join(block.code for block in blocks(document, language="sh"))
    first, _, rest = code.partition("\n")
    assert first == START
    return re.sub(rf"^{re.escape(START)}$", "", rest, flags=re.MULTILINE)


def test_the_first_command_of_both_documents_starts_the_system() -> None:
    for document in (README, QUICKSTART):
        first = next(iter(blocks(document, language="sh")))
        assert first.code.splitlines()[0] == START


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize("document", [README, QUICKSTART], ids=lambda path: path.name)
def test_every_command_works_in_order(newcomer: Newcomer, tmp_path: Path, document: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: on Debian, apt install {shell}")
    folder = newcomer.another_clone(tmp_path / "clone")
    code = commands(document).replace("127.0.0.1:8000", f"127.0.0.1:{newcomer.port}")
    code = re.sub(
        r"^emx analyze (?!.*--url)", "EMX_URL= emx analyze ", code, flags=re.MULTILINE
    )  # as it says: here
    assert "$ID" not in code
    # An interactive zsh knows no comments, and takes ? and * for patterns of files: so it is interactive here.
    options = {"bash": ["--norc", "--noprofile"], "zsh": ["-f", "-i", "+Z", "-s"]}[shell]
    strict = 'set -e\ncurl() { command curl --fail-with-body --show-error "$@"; }\n'
    done = subprocess.run(
        [shell, *options],
        cwd=folder,
        input=f"{strict}{code}\necho {_DONE}\n",
        env=environment(newcomer, tmp_path),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0 and _DONE in done.stdout, done.stdout[-4000:] + done.stderr[-4000:]
    assert (folder / "boxes.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "results" / "results.csv").read_text().count("succeeded") == 1
    if document == README:
        assert (folder / "reports" / "sample.json").is_file() and (folder / "boxes" / "sample.png").is_file()


def environment(newcomer: Newcomer, folder: Path) -> dict[str, str]:
    """Variables of a newcomer's shell: none of ours, and the port where the system happens to listen."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EMX_", "VIRTUAL_ENV"))}
    config = {"XDG_CONFIG_HOME": str(folder / "config"), "COLUMNS": "120", "TERM": "dumb"}
    server = {"EMX_URL": f"http://127.0.0.1:{newcomer.port}", "EMX_PORT": str(newcomer.port)}
    return {**kept, **config, **server}
