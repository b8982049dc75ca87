"""The gateway's manners: what a client gets, and what it gets for bad input."""

import io
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
from PIL import Image

from support.gateway import RunningGateway


def test_a_study_is_accepted_polled_and_shown(gateway: RunningGateway) -> None:
    accepted = gateway.submit(gateway.png())
    assert accepted.status_code == 202
    where = accepted.headers["location"]
    assert gateway.client.get(where).json()["state"] == "queued"
    gateway.problem(gateway.client.get(f"{where}/overlay.png"), 409, "no-report")
    report = gateway.read_by_a_worker(accepted.json()["id"])
    job = gateway.client.get(where).json()
    assert job["state"] == "succeeded"
    assert job["report"]["locations"][0]["box"] == {"xmin": 40, "ymin": 30, "xmax": 70, "ymax": 55}
    overlay = Image.open(io.BytesIO(gateway.client.get(f"{where}/overlay.png").content))
    assert overlay.size == (80, 60)
    assert overlay.getpixel((71, 40)) == tuple(bytes.fromhex(report.locations[0].colour[1:]))
    assert "pleural effusion, left: x 40–70, y 30–55 (82 %)" in gateway.client.get(f"{where}/report.txt").text
    assert gateway.client.get(f"{where}/input").content.startswith(b"\x89PNG")
    gateway.problem(gateway.client.post(f"{where}/cancel"), 409, "already-ended")
    assert gateway.client.delete(where).status_code == 204
    gateway.problem(gateway.client.get(where), 404, "no-such-job")


def test_a_job_can_be_cancelled(gateway: RunningGateway) -> None:
    where = gateway.submit(gateway.png()).headers["location"]
    assert gateway.client.post(f"{where}/cancel").json()["state"] == "cancelled"
    assert gateway.client.get(where).json()["state"] == "cancelled"


def test_explain_says_where_the_job_goes_on_when_it_takes_too_long(gateway: RunningGateway) -> None:
    answer = gateway.client.post("/explain", files={"file": ("x.png", gateway.png())})
    gateway.problem(answer, 504, "still-running")
    assert gateway.client.get(answer.headers["location"]).json()["state"] == "queued"


def test_bad_input_gets_a_problem_document_and_the_service_lives_on(gateway: RunningGateway) -> None:
    whole = gateway.png(256, 256)
    gateway.problem(gateway.submit(b""), 422, "bad-image")
    gateway.problem(gateway.submit(b"hello, this is text"), 415, "not-an-image")
    gateway.problem(gateway.submit(whole[: len(whole) // 2]), 422, "bad-image")
    gateway.problem(gateway.client.post("/v1/jobs", files={"image": ("x.png", whole)}), 422, "invalid-request")
    gateway.problem(gateway.client.post("/v1/jobs", content=b"{"), 415, "unknown-content-type")
    gateway.problem(gateway.client.get("/v1/jobs/unknown"), 404, "no-such-job")
    gateway.problem(gateway.client.get(f"/v1/jobs/{uuid.uuid4()}"), 404, "no-such-job")
    gateway.problem(gateway.client.get("/v1/jobs/..%2f..%2fetc"), 404, "not-found")
    gateway.problem(gateway.client.get("/nowhere"), 404, "not-found")
    gateway.problem(gateway.client.put("/v1/jobs"), 405, "method-not-allowed")
    data = {"webhook_url": "https://example.org"}
    no_secret = gateway.client.post("/v1/jobs", files={"file": ("x.png", whole)}, data=data)
    gateway.problem(no_secret, 422, "no-webhook-secret")
    assert gateway.submit(whole).status_code == 202


def test_what_is_too_large_is_refused_before_it_is_decoded_or_stored(gateway: RunningGateway) -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 100_000
    gateway.problem(gateway.submit(buffer.getvalue()), 413, "image-too-large")
    gateway.problem(gateway.submit(bytes(1_500_000)), 413, "image-too-large")
    gateway.problem(gateway.submit(bytes(6_000_000)), 413, "body-too-large")

    def chunks() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n\r\n'
        for _ in range(100):
            yield bytes(100_000)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with suppress(httpx.WriteError):  # the gateway may hang up on the rest
        gateway.problem(gateway.client.post("/v1/jobs", content=chunks(), headers=headers), 413, "body-too-large")
    assert gateway.submit(gateway.png()).status_code == 202


def test_readiness_names_what_is_missing(gateway: RunningGateway) -> None:
    answer = gateway.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"] == {
        "redis": True,
        "store": True,
        "worker": False,
        "courier": False,
    }


def test_metrics_and_documentation_are_served(gateway: RunningGateway) -> None:
    where = gateway.submit(gateway.png()).headers["location"]
    gateway.client.post(f"{where}/cancel")
    text = gateway.client.get("/metrics").text
    assert 'emx_jobs_submitted_total{priority="routine"}' in text
    assert 'emx_job_outcomes_total{outcome="cancelled"}' in text
    assert "process_resident_memory_bytes" in text
    assert 'emx_queue_depth{queue="routine"}' in text
    assert gateway.client.get("/docs").status_code == 200
    assert "/explain" in gateway.client.get("/openapi.json").json()["paths"]


def test_it_refuses_to_listen_beyond_loopback_without_keys(redis_url: str, tmp_path: Path) -> None:
    environment = {**os.environ, "EMX_HOST": "0.0.0.0", "EMX_REDIS": redis_url, "EMX_STORE": f"file:{tmp_path}"}
    refused = subprocess.run(
        [sys.executable, "-P", "-m", "emx_gateway"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 1
    assert "emx keys create" in refused.stderr
