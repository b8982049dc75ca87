"""A courier that can't work says so and ends, before it takes any message."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from emx_gateway.courier.health import fault
from emx_shared.messaging import CeleryQueue, celery_app
from emx_shared.redis_state.circuit_breaker import CircuitBreaker
from emx_shared.settings import Settings
from explainmyxray.supervisor import free_port

COURIER = [sys.executable, "-P", "-m", "emx_gateway.courier"]


def test_it_waits_for_its_store_and_takes_no_message_meanwhile(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.delete("courier")
        CeleryQueue(celery_app("test", Settings(redis=redis_url)), CircuitBreaker()).deliver("some-delivery")
        own = {"EMX_REDIS": redis_url, "EMX_STORE": f"s3+http://127.0.0.1:{free_port()}/nowhere"}
        courier = subprocess.Popen(
            COURIER, env={**os.environ, **own}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert courier.stdout
            lines = (line for line in courier.stdout if "Trying again" in line)
            assert "The object store could not be reached" in next(lines)
            assert "The object store could not be reached" in next(lines)
            assert courier.poll() is None
            assert client.llen("courier") == 1
        finally:
            courier.terminate()
            rest, _ = courier.communicate(timeout=20)
        assert "Traceback" not in rest
        client.delete("courier")


def test_with_its_metrics_port_taken_it_ends(redis_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        own = {"EMX_REDIS": redis_url, "EMX_STORE": f"file:{tmp_path}", "EMX_METRICS_PORT": port}
        done = subprocess.run(COURIER, env={**os.environ, **own}, capture_output=True, text=True, timeout=90)
    assert done.returncode == 1
    assert f"can't serve metrics on port {port}" in done.stderr + done.stdout


@pytest.mark.parametrize(("age", "well"), [(5.0, True), (600.0, False)])
def test_its_health_is_the_age_of_its_last_round(age: float, well: bool) -> None:
    registry, port = CollectorRegistry(), free_port()
    last = Gauge("emx_reconcile_last_success_timestamp_seconds", "…", registry=registry)
    server, thread = start_http_server(port, "127.0.0.1", registry)
    try:
        last.set(time.time() - age)
        assert (fault(port, time.time()) is None) == well
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert fault(port, time.time())
