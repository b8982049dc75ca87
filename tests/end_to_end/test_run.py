"""``emx up`` and ``run.sh`` as a stranger runs them."""

import json
import os
import signal
import socket
import subprocess
import sysconfig
import time
from pathlib import Path

import httpx
import psutil
import pytest

from explainmyxray.supervisor import free_port
from support.paths import ROOT

EMX = str(Path(sysconfig.get_path("scripts")) / "emx")


def emx_up(port: int, data: Path, *options: str) -> subprocess.Popen[str]:
    command = [EMX, "up", "--port", str(port), "--data", str(data), *options]
    environment = {**os.environ, "COLUMNS": "200"}
    errors = subprocess.DEVNULL if "--json" in options else subprocess.STDOUT
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=errors)


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def all_gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=15)[1]


def wait_until_serving(process: subprocess.Popen[str]) -> str:
    """What it printed until it named the workstation's address."""
    assert process.stdout
    printed = ""
    for line in process.stdout:
        printed += line
        if "Workstation:" in line:
            return printed
    raise AssertionError(printed)


def test_once_prints_the_report_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = emx_up(free_port(), tmp_path / "data", "--once")
    started: list[psutil.Process] = []
    while process.poll() is None:
        started += [child for child in descendants(process) if child not in started]
        time.sleep(0.2)
    assert process.stdout
    printed = process.stdout.read()
    assert process.returncode == 0, printed
    for expected in ("FINDINGS", "LOCATIONS", "IMPRESSION", "xmin", "Not for clinical use", "demo-overlay.png"):
        assert expected in printed
    assert (tmp_path / "data" / "demo-overlay.png").read_bytes().startswith(b"\x89PNG")
    assert len(started) >= 4  # Redis, gateway, courier, worker
    assert all_gone(started)


def told_as_json(process: subprocess.Popen[str], data: Path) -> None:
    assert process.stdout
    told = json.loads(process.stdout.readline())
    assert httpx.get(f"{told['url']}/readyz").json()["ready"]
    assert sorted(told["metrics"]) == ["courier", "gateway", "worker"]
    assert told["demo"]["id"] and told["demo"]["state"] == "succeeded"
    assert told["demo"]["report"]["locations"] and told["overlay"] == str(data / "demo-overlay.png")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopping_it_stops_what_it_started(tmp_path: Path, how: signal.Signals) -> None:
    data = tmp_path / "data"
    if how == signal.SIGTERM:
        process = emx_up(free_port(), data, "--json")
        told_as_json(process, data)
    else:
        process = emx_up(free_port(), data)
        wait_until_serving(process)
    started = descendants(process)
    assert len(started) >= 4
    process.send_signal(how)
    assert process.wait(60) == {signal.SIGINT: 0, signal.SIGTERM: 143, signal.SIGKILL: -9}[how]
    assert all_gone(started)


def test_a_busy_port_gets_a_sentence_with_another(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = emx_up(port, tmp_path / "data")
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"Port {port} is in use" in printed
    assert f"--port {port + 1}" in printed


def test_a_data_folder_that_cannot_be_made_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    process = emx_up(free_port(), tmp_path / "file" / "data")
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "--data DIR" in printed


@pytest.mark.parametrize("script", ["run.sh", "test.sh"])
def test_a_missing_python_gets_a_sentence(script: str) -> None:
    environment = {**os.environ, "PYTHON": "/nowhere/python"}
    answer = subprocess.run(["bash", str(ROOT / script)], env=environment, capture_output=True, text=True)
    assert answer.returncode == 1
    assert "Python 3.11 or newer is needed" in answer.stderr
