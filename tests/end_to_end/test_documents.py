"""What the documents show is what happens: their calls are made to a running service."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from emx_shared.demo_files import DEMO_IMAGE
from explainmyxray.supervisor import Supervisor
from support.documents import DOCS, ROOT, Block, blocks, shell_lines

SHOWN = (ROOT / "README.md", DOCS / "quickstart.md", DOCS / "guides" / "integrate.md")
"""Of the first two, ``test_readme.py`` runs all commands in their order."""

PYTHON = [block for document in SHOWN for block in blocks(document, language="python")]
CURL = [
    (block, command)
    for document in SHOWN[2:]
    for block, command in shell_lines(document)
    if command.startswith("curl ")
]


@pytest.fixture
def folder(tmp_path: Path, client: httpx.Client) -> Path:
    """A working directory with the files that the documents name."""
    for name in ("chest.png", "chest.dcm", "a.png", "b.dcm", "models/demo/sample.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DEMO_IMAGE, tmp_path / name)
    upload = client.post("/v1/uploads").json()
    httpx.put(upload["url"], content=DEMO_IMAGE.read_bytes()).raise_for_status()
    (tmp_path / "manifest.csv").write_text(f"image,name\nupload:{upload['id']},first\n")
    return tmp_path


def environment(system: Supervisor) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EMX_")}
    return {**kept, "EMX_URL": system.url, "EMX_API_KEY": "", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_python_block_runs(block: Block, system: Supervisor, folder: Path) -> None:
    code = block.code.replace("http://127.0.0.1:8000", system.url)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(system),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(("block", "command"), CURL, ids=lambda part: str(part)[:70])
def test_a_curl_command_is_accepted(
    block: Block, command: str, system: Supervisor, client: httpx.Client, folder: Path
) -> None:
    command = command.replace("http://127.0.0.1:8000", system.url)
    command = command.replace("https://ris.example.org/hook", f"{system.url}/hook")  # no example has an address
    command = command.replace('-H "Authorization: Bearer $EMX_API_KEY" ', "")  # this server has no keys
    if "/v1/jobs/$ID" in command:
        job = client.post(
            "/v1/jobs", files={"file": DEMO_IMAGE.read_bytes()}, headers={"Prefer": "wait=60"}
        ).json()
        command = command.replace("$ID", job["id"])
    if "/v1/batches/$ID" in command:
        batch = client.post("/v1/batches", files={"files": DEMO_IMAGE.read_bytes()}).json()
        command = command.replace("$ID", batch["id"])
    command = re.sub(r"^curl ", "curl --fail-with-body --silent --show-error --globoff ", command)
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment(system), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
