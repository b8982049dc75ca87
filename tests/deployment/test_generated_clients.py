"""Clients that others generate from the OpenAPI document: made anew, type-checked, and used on a real gateway."""

import base64
import json
import shutil
import subprocess
import threading
import venv
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.gateway import RunningGateway, StartGateway

HERE = Path(__file__).parent / "generated_clients"
GENERATOR = "openapi-python-client==0.29.1"
UNTYPED = ("image/", "application/dicom", "application/pdf", "application/zip", "application/x-ndjson", "text/csv")
"""Content for which the Python generator has no types: pictures, files and lines."""


@pytest.fixture(scope="module")
def gateway(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, start_gateway: StartGateway
) -> Iterator[RunningGateway]:
    """A gateway whose jobs are read, as far as clients can tell."""
    with start_gateway(redis_url, tmp_path_factory.mktemp("store")) as made:
        over = threading.Event()
        worker = threading.Thread(target=_work, args=(made, over))
        worker.start()
        yield made
        over.set()
        worker.join()


def _work(gateway: RunningGateway, over: threading.Event) -> None:
    while not over.wait(0.1):
        for entry in list(gateway.ledger.store.list("open/")):
            with suppress(AssertionError):
                gateway.read_by_a_worker(entry.key.removeprefix("open/"))


def test_a_python_client(gateway: RunningGateway, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", GENERATOR],
        capture_output=True,
        text=True,
    )
    if installed.returncode:
        pytest.skip(f"{GENERATOR} can't be installed here")
    (tmp_path / "openapi.json").write_text(gateway.client.get("/openapi.json").text)
    generator = tmp_path / "venv/bin/openapi-python-client"
    generated = subprocess.run(
        [generator, "generate", "--path", "openapi.json", "--output-path", "made"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    complaints = [line for line in generated.stdout.splitlines() if "nsupported" in line or "annot parse" in line]
    assert complaints and all(any(kind in line for kind in UNTYPED) for line in complaints)
    (tmp_path / "x.png").write_bytes(gateway.png())
    ran = subprocess.run(
        [python, HERE / "client.py", gateway.url, tmp_path / "x.png"],
        cwd=tmp_path / "made",
        env={"PYTHONPATH": str(tmp_path / "made")},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert json.loads(ran.stdout) == ["stat", "Effusion.", "urn:explainmyxray:problem:no-such-job"]


@pytest.mark.skipif(not shutil.which("npm"), reason="npm isn't installed")
def test_a_typescript_client(gateway: RunningGateway, tmp_path: Path) -> None:
    for file in ("package.json", "client.ts"):
        shutil.copy(HERE / file, tmp_path)
    quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
    if subprocess.run(["npm", "install", *quiet], cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("the npm packages can't be installed here")
    (tmp_path / "openapi.json").write_text(gateway.client.get("/openapi.json").text)
    for command in (
        ["openapi-typescript", "openapi.json", "-o", "api.d.ts"],
        ["tsc", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom", "client.ts"],
    ):
        made = subprocess.run(["npx", "--no-install", *command], cwd=tmp_path, capture_output=True, text=True)
        assert made.returncode == 0, made.stdout + made.stderr
    image = base64.b64encode(gateway.png()).decode()
    ran = subprocess.run(["node", "client.js", gateway.url, image], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    expected = ["stat", "Effusion.", "urn:explainmyxray:problem:no-such-job", "job.succeeded"]
    assert json.loads(ran.stdout) == expected
