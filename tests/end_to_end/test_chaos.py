"""The short form of the chaos matrix: every row, on both stores."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from support.paths import ROOT
from tests.chaos.phases import PHASES

pytestmark = pytest.mark.chaos


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "tests.chaos", *options]


def environment() -> dict[str, str]:
    """Leave out coverage's variables: to trace every process takes several times as long."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("store", ["directory", "s3"])
def test_nothing_is_lost_whatever_breaks(store: str) -> None:
    run = subprocess.run(
        command("--jobs", "50", "--store", store, "--json"),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=580,
    )
    result = json.loads(run.stdout)
    rows = {row["name"]: row for row in result["rows"]}
    counts = ("lost", "double_outcomes", "owed_webhooks", "orphans")
    broken = {name: row for name, row in rows.items() if any(row[count] for count in counts)}
    assert not broken, json.dumps(broken, indent=1)
    assert run.returncode == 0, run.stderr
    assert set(rows) == {phase.name for phase in PHASES}
    assert result["jobs"] >= 50
    missed = {name: row["notes"] for name, row in rows.items() if "nobody came to" in " ".join(row["notes"])}
    assert not missed, "a process has died before and after every named write"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_process_behind(number: signal.Signals, tmp_path: Path) -> None:
    run = subprocess.Popen(
        command("--phases", "stop-*"),
        cwd=ROOT,
        env={**environment(), "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stderr
    for line in run.stderr:
        if "stop-gateway" in line:
            break
    started = psutil.Process(run.pid).children(recursive=True)
    assert len(started) > 6
    run.send_signal(number)
    run.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert run.returncode == 130
        assert not list(tmp_path.iterdir())
    until = time.monotonic() + 20
    while left := [process for process in started if process.is_running() and process.status() != "zombie"]:
        assert time.monotonic() < until, left
        time.sleep(0.1)
