"""What probes answer, whatever the rest is going through."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx

from support.gateway import StartGateway
from support.hanging_proxy import hanging_proxy


def test_a_hung_store_keeps_no_probe_waiting(
    redis_url: str, seaweed: str, tmp_path: Path, start_gateway: StartGateway
) -> None:
    with hanging_proxy(seaweed) as proxy:
        store = {
            "EMX_STORE": f"s3+http://{proxy.address}/ready",
            "EMX_S3_ACCESS_KEY": "any",
            "EMX_S3_SECRET_KEY": "any",
        }
        with start_gateway(redis_url, tmp_path, **store) as gateway:
            job = gateway.submit(gateway.png()).json()["id"]
            proxy.hang.set()
            hung = [threading.Thread(target=_read, args=(f"{gateway.url}/v1/jobs/{job}",)) for _ in range(60)]
            for each in hung:
                each.start()
            time.sleep(1)
            with httpx.Client(base_url=gateway.url, timeout=10) as probe:
                assert probe.get("/healthz").text == "ok"
                assert probe.get("/readyz").json()["checks"] == {
                    "redis": True,
                    "store": False,
                    "worker": False,
                    "courier": False,
                }
                assert "emx_redis_up 1.0" in probe.get("/metrics").text
            proxy.close()
            for each in hung:
                each.join(30)


def _read(url: str) -> None:
    try:
        httpx.get(url, timeout=20)
    except httpx.HTTPError:
        return


def test_a_gateway_is_ready_for_as_long_as_a_couriers_rounds_succeed(
    redis_url: str, tmp_path: Path, start_gateway: StartGateway
) -> None:
    with start_gateway(redis_url, tmp_path) as gateway:
        own = {"EMX_STORE": f"file:{tmp_path}", "EMX_REDIS": redis_url, "EMX_RECONCILE_EVERY": "0.2"}
        courier = subprocess.Popen([sys.executable, "-P", "-m", "emx_gateway.courier"], env={**os.environ, **own})
        try:
            give_up = time.monotonic() + 60
            while not gateway.client.get("/readyz").json()["checks"]["courier"]:
                assert time.monotonic() < give_up and courier.poll() is None
                time.sleep(0.2)
        finally:
            courier.terminate()
            courier.wait(20)
