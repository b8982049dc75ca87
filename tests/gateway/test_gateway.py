"""The gateway over real HTTP, on a real Redis and a real store; a worker's outcomes are written by the test."""

import io
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image

from shared.findings import BY_LABEL
from shared.ledger import Ledger, finish, start
from shared.ledger.records import Outcome
from shared.opening import open_ledger
from shared.report import Box, ImageFacts, Location, ModelProvenance, Report, Timings, TokenCounts
from shared.settings import Settings


@dataclass
class Running:
    client: httpx.Client
    ledger: Ledger


@pytest.fixture(scope="module")
def gateway(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    store = f"file:{tmp_path_factory.mktemp('store')}"
    environment = {**os.environ, "EMX_STORE": store, "EMX_REDIS": redis_url, "EMX_PORT": str(port)}
    environment |= {"EMX_EXPLAIN_TIMEOUT": "2", "EMX_MAX_UPLOAD_BYTES": "1000000"}
    process = subprocess.Popen([sys.executable, "-m", "gateway"], env=environment)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
    for _ in range(100):
        try:
            client.get("/healthz")
            break
        except httpx.TransportError:
            time.sleep(0.2)
    yield Running(client, open_ledger(Settings(store=store, redis=redis_url), "test"))
    process.terminate()
    assert process.wait(20) == 0 or process.returncode == -15


def png(width: int = 80, height: int = 60) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 60).save(buffer, "PNG")
    return buffer.getvalue()


def submit(gateway: Running, data: bytes) -> httpx.Response:
    return gateway.client.post("/v1/jobs", files={"file": ("x.png", data)})


def read_by_a_worker(gateway: Running, job: str) -> Report:
    finding = BY_LABEL["pleural effusion"]
    report = Report(
        findings="There is fluid.",
        impression="Effusion.",
        locations=(
            Location(
                label=finding.label,
                code=finding.code,
                snomed_ct=finding.snomed_ct,
                laterality="left",
                box=Box(xmin=40, ymin=30, xmax=70, ymax=55),
                box_normalised=Box(xmin=0.5, ymin=0.5, xmax=0.875, ymax=55 / 60),
                colour=finding.colour,
                probability=0.816,
            ),
        ),
        image=ImageFacts(width=80, height=60, media_type="image/png", sha256="0" * 64),
        model=ModelProvenance(
            name="test", revision="0", quantisation="none", engine="none", dialect="loc", demo=True
        ),
        timings=Timings(),
        tokens=TokenCounts(prompt=1, generated=1),
        created_at=gateway.ledger.store.now(),
    )
    token = uuid.uuid4().hex
    started = start(gateway.ledger, job, token)
    assert started
    now = gateway.ledger.store.now()
    finish(gateway.ledger, job, Outcome(kind="report", report=report, started_at=now, finished_at=now))
    gateway.ledger.index.release_lease(job, token)
    return report


def problem(answer: httpx.Response, status: int, kind: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == f"urn:explainmyxray:problem:{kind}"
    assert answer.json()["status"] == status


def test_a_study_is_accepted_polled_and_shown(gateway: Running) -> None:
    accepted = submit(gateway, png())
    assert accepted.status_code == 202
    where = accepted.headers["location"]
    assert gateway.client.get(where).json()["state"] == "queued"
    problem(gateway.client.get(f"{where}/overlay.png"), 409, "no-report")
    report = read_by_a_worker(gateway, accepted.json()["id"])
    job = gateway.client.get(where).json()
    assert job["state"] == "succeeded"
    assert job["report"]["locations"][0]["box"] == {"xmin": 40, "ymin": 30, "xmax": 70, "ymax": 55}
    overlay = Image.open(io.BytesIO(gateway.client.get(f"{where}/overlay.png").content))
    assert overlay.size == (80, 60)
    assert overlay.getpixel((71, 40)) == tuple(bytes.fromhex(report.locations[0].colour[1:]))
    assert "pleural effusion, left: x 40–70, y 30–55 (82 %)" in gateway.client.get(f"{where}/report.txt").text
    assert gateway.client.get(f"{where}/input").content.startswith(b"\x89PNG")
    problem(gateway.client.post(f"{where}/cancel"), 409, "already-ended")
    assert gateway.client.delete(where).status_code == 204
    problem(gateway.client.get(where), 404, "no-such-job")


def test_a_job_can_be_cancelled(gateway: Running) -> None:
    where = submit(gateway, png()).headers["location"]
    assert gateway.client.post(f"{where}/cancel").json()["state"] == "cancelled"
    assert gateway.client.get(where).json()["state"] == "cancelled"


def test_explain_says_where_the_job_goes_on_when_it_takes_too_long(gateway: Running) -> None:
    answer = gateway.client.post("/explain", files={"file": ("x.png", png())})
    problem(answer, 504, "still-running")
    assert gateway.client.get(answer.headers["location"]).json()["state"] == "queued"


def test_a_batch_is_accepted_whole_or_not_at_all(gateway: Running) -> None:
    good = [("files", ("a.png", png())), ("files", ("b.png", png()))]
    accepted = gateway.client.post("/v1/batches", files=good)
    assert accepted.status_code == 202
    assert gateway.client.get(accepted.headers["location"]).json()["counts"] == {"open": 2}
    bad = gateway.client.post("/v1/batches", files=[*good, ("files", ("c.png", b"nothing"))])
    problem(bad, 415, "not-an-image")
    assert "number 3" in bad.json()["detail"]


def test_bad_input_gets_a_problem_document_and_the_service_lives_on(gateway: Running) -> None:
    whole = png(256, 256)
    problem(submit(gateway, b""), 422, "bad-image")
    problem(submit(gateway, b"hello, this is text"), 415, "not-an-image")
    problem(submit(gateway, whole[: len(whole) // 2]), 422, "bad-image")
    problem(gateway.client.post("/v1/jobs", files={"image": ("x.png", whole)}), 422, "invalid-request")
    problem(gateway.client.post("/v1/jobs", content=b"{"), 422, "invalid-request")
    problem(gateway.client.get("/v1/jobs/unknown"), 404, "no-such-job")
    problem(gateway.client.get(f"/v1/jobs/{uuid.uuid4()}"), 404, "no-such-job")
    problem(gateway.client.get("/v1/jobs/..%2f..%2fetc"), 404, "not-found")
    problem(gateway.client.get("/nowhere"), 404, "not-found")
    problem(gateway.client.put("/v1/jobs"), 405, "method-not-allowed")
    data = {"webhook_url": "https://example.org"}
    no_secret = gateway.client.post("/v1/jobs", files={"file": ("x.png", whole)}, data=data)
    problem(no_secret, 422, "no-webhook-secret")
    assert submit(gateway, whole).status_code == 202


def test_what_is_too_large_is_refused_before_it_is_decoded_or_stored(gateway: Running) -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 100_000
    problem(submit(gateway, buffer.getvalue()), 413, "image-too-large")
    problem(submit(gateway, bytes(1_500_000)), 413, "image-too-large")
    problem(submit(gateway, bytes(6_000_000)), 413, "body-too-large")

    def chunks() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n\r\n'
        for _ in range(100):
            yield bytes(100_000)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with suppress(httpx.WriteError):  # the gateway may hang up on the rest
        problem(gateway.client.post("/v1/jobs", content=chunks(), headers=headers), 413, "body-too-large")
    assert submit(gateway, png()).status_code == 202


def test_readiness_names_what_is_missing(gateway: Running) -> None:
    answer = gateway.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"] == {"redis": True, "store": True, "worker": False}


def test_metrics_and_documentation_are_served(gateway: Running) -> None:
    where = submit(gateway, png()).headers["location"]
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
        [sys.executable, "-m", "gateway"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 1
    assert "127.0.0.1" in refused.stderr
