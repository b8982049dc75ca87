"""What a gateway does while Redis takes connections and answers nothing, or refuses them."""

import time
from pathlib import Path

from emx_gateway.http.problems import MEDIA_TYPE
from explainmyxray.supervisor import free_port
from support.gateway import StartGateway
from support.hanging_proxy import hanging_proxy

PATIENCE = 6.0
"""Seconds: far more than the time-outs of one call, far less than those of all that a request asks Redis."""


def test_jobs_are_submitted_and_looked_up_without_redis(
    redis_url: str, tmp_path: Path, start_gateway: StartGateway
) -> None:
    address = redis_url.removeprefix("redis://").removesuffix("/0")
    with (
        hanging_proxy(address) as proxy,
        start_gateway(f"redis://{proxy.address}/0", tmp_path, EMX_DAILY_QUOTA="1000") as gateway,
    ):
        before = gateway.submit(gateway.png()).json()["id"]
        proxy.hang.set()
        gateway.client.timeout = PATIENCE
        began = time.monotonic()
        submitted = [gateway.submit(gateway.png(), priority=priority) for priority in ("stat", "routine") * 3]
        assert {answer.status_code for answer in submitted} == {202}
        for job in (before, submitted[0].json()["id"]):
            assert gateway.client.get(f"/v1/jobs/{job}").json()["state"] == "queued"
        listed = gateway.client.get("/v1/jobs")
        assert (listed.status_code, listed.headers["content-type"]) == (503, MEDIA_TYPE)
        assert gateway.client.delete(f"/v1/jobs/{before}").status_code in (200, 202, 204)
        assert gateway.client.get("/readyz").json()["checks"]["redis"] is False
        assert time.monotonic() - began < 4 * PATIENCE  # eleven requests
        proxy.hang.clear()


def test_a_redis_that_refuses_connections_costs_a_submission_nothing(
    tmp_path: Path, start_gateway: StartGateway
) -> None:
    with start_gateway(f"redis://127.0.0.1:{free_port()}/0", tmp_path) as gateway:
        gateway.client.timeout = PATIENCE
        began = time.monotonic()
        assert {gateway.submit(gateway.png()).status_code for _ in range(10)} == {202}
        assert time.monotonic() - began < 2 * PATIENCE  # ten submissions
