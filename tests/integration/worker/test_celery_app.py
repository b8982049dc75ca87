"""The Celery worker as a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kombu import Connection

from emx_shared.messaging import READ_TASK, CeleryQueue, celery_app
from emx_shared.redis_state import RedisState
from emx_shared.redis_state.circuit_breaker import CircuitBreaker
from emx_shared.settings import Settings

Start = Callable[[Path | str], "subprocess.Popen[str]"]


@pytest.fixture
def start(redis_state: RedisState, redis_url: str, tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(model: Path | str) -> "subprocess.Popen[str]":
        own = {
            "EMX_REDIS": redis_url,
            "EMX_STORE": f"file:{tmp_path / 'store'}",
            "EMX_MODEL": str(model),
            "EMX_LOG_LEVEL": "info",
        }
        command = [sys.executable, "-P", "-m", "emx_worker"]
        started.append(
            subprocess.Popen(
                command,
                env={**os.environ, **own, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def waiting(redis_url: str) -> int:
    with Connection(redis_url) as connection:
        return int(connection.default_channel.client.llen("routine"))


def test_a_worker_that_cannot_load_its_model_says_so_and_takes_no_message(start: Start, redis_url: str) -> None:
    CeleryQueue(celery_app("test", Settings(redis=redis_url)), CircuitBreaker()).enqueue_read("job", "routine")
    process = start("/nowhere/model")
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "The worker can't start. There is no directory /nowhere/model" in said
    assert "Traceback" not in said
    assert waiting(redis_url) == 1


def test_a_worker_shows_itself_and_ends_when_asked(
    start: Start, redis_state: RedisState, checkpoint: Path
) -> None:
    process = start(checkpoint)
    assert process.stdout
    said = []
    for line in process.stdout:
        said.append(line)
        if "ready." in line:
            break
    assert redis_state.workers.count() == 1, "".join(said)
    assert any(READ_TASK in line for line in said)
    assert any("model tiny ready" in line for line in said)
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest
