"""The whole system as real processes: Redis, gateway, courier and a worker with the demo model."""

import io
import os
import re
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import redis
from PIL import Image
from standardwebhooks.webhooks import Webhook

from explainmyxray import Client
from explainmyxray.supervisor import Supervisor
from support.paths import RADIOGRAPHS

REAL = RADIOGRAPHS


def png(width: int = 300, height: int = 200) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 60).save(buffer, "PNG")
    return buffer.getvalue()


def wait(client: httpx.Client, where: str, seconds: float = 90) -> dict:  # type: ignore[type-arg]
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        resource: dict = client.get(where).json()  # type: ignore[type-arg]
        if resource["state"] not in ("queued", "running"):
            return resource
        time.sleep(0.1)
    raise AssertionError(f"{where} is still {resource['state']}")


def test_explain_answers_with_the_finished_report(client: httpx.Client) -> None:
    answer = client.post("/explain", files={"file": ("x.png", png())})
    assert answer.status_code == 200
    report = answer.json()["report"]
    assert report["findings"] and report["impression"]
    assert (report["image"]["width"], report["image"]["height"]) == (300, 200)
    assert "Not for clinical use" in report["disclaimer"]
    for place in report["locations"]:
        box = place["box"]
        assert 0 <= box["xmin"] < box["xmax"] <= 300
        assert 0 <= box["ymin"] < box["ymax"] <= 200


@pytest.mark.skipif(not REAL.is_dir(), reason="no real radiographs here")
def test_real_radiographs_are_declined_by_the_demo_model_and_shown_at_full_resolution(
    client: httpx.Client,
) -> None:
    for name, size in (("00000001_000.png", (512, 512)), ("covid-19-pneumonia-58-prior.jpg", (2373, 2373))):
        accepted = client.post("/v1/jobs", files={"file": (name, (REAL / name).read_bytes())})
        where = accepted.headers["location"]
        job = wait(client, where)
        assert job["state"] == "succeeded"
        assert job["report"]["abstained"] and not job["report"]["locations"]
        assert "unlike those that the model was trained on" in job["report"]["warnings"][0]
        assert "not assessed" in client.get(f"{where}/report.txt").text
        assert Image.open(io.BytesIO(client.get(f"{where}/overlay.png").content)).size == size


def test_a_batch_ends_with_a_report_for_every_file(client: httpx.Client) -> None:
    files = [("files", (f"{number}.png", png())) for number in range(5)]
    accepted = client.post("/v1/batches", files=files)
    batch = wait(client, accepted.headers["location"])
    assert batch["counts"] == {"succeeded": 5, "open": 0}
    items = client.get(f"/v1/batches/{batch['id']}/items").json()["items"]
    assert client.get(f"/v1/jobs/{items[0]['id']}").json()["batch"] == batch["id"]


def test_a_webhook_is_signed_and_tried_again_until_it_is_taken(client: httpx.Client) -> None:
    received: list[tuple[dict[str, str], bytes]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(500 if len(received) == 1 else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/hook"
    secret = client.post("/v1/webhooks/secrets/rotate").json()["secret"]
    accepted = client.post("/v1/jobs", files={"file": ("x.png", png())}, data={"webhook_url": url})
    give_up = time.monotonic() + 60
    while len(received) < 2 and time.monotonic() < give_up:
        time.sleep(0.1)
    server.shutdown()
    (first, _), (second, body) = received
    assert first["webhook-id"] == second["webhook-id"]
    event = Webhook(secret).verify(body, second)
    assert event["type"] == "job.succeeded"
    assert event["data"]["id"] == accepted.json()["id"]
    assert event["data"]["report"]["findings"]


def test_killing_the_worker_and_redis_loses_nothing(system: Supervisor, client: httpx.Client) -> None:
    where = [client.post("/v1/jobs", files={"file": ("x.png", png())}).headers["location"] for _ in range(12)]
    for name in ("worker", "redis"):
        part = next(part for part in system.parts if part.name == name)
        assert part.process
        os.kill(part.process.pid, signal.SIGKILL)
        part.process.wait()
        part.start()
    where += [client.post("/v1/jobs", files={"file": ("x.png", png())}).headers["location"] for _ in range(3)]
    assert [wait(client, job, 120)["state"] for job in where] == ["succeeded"] * 15


def test_a_batch_outlives_the_death_of_every_process_and_repeats_nothing(
    system: Supervisor, client: httpx.Client
) -> None:
    called: list[str] = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            called.append(self.headers["webhook-id"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client.post("/v1/webhooks/secrets/rotate")
    with Client(system.url) as api:
        hook = f"http://127.0.0.1:{server.server_port}/hook"
        batch = api.batches.create([png() for _ in range(30)], priority="routine", webhook_url=hook)
        for name in ("courier", "worker", "redis", "gateway"):
            part = next(part for part in system.parts if part.name == name)
            assert part.process
            os.kill(part.process.pid, signal.SIGKILL)
            part.process.wait()
            time.sleep(0.3)
            part.start()
        for _ in system.wait_until_ready():  # a busy machine takes longer than clients try again
            pass
        *_, last = api.batches.progress(batch, timeout=150)
        assert last.counts == {"succeeded": 30, "open": 0}
        results = list(api.batches.results(batch))
        assert len({job.id for job in results}) == 30 and all(job.report for job in results)
    give_up = time.monotonic() + 30
    while not called and time.monotonic() < give_up:
        time.sleep(0.1)
    server.shutdown()
    assert len(set(called)) == 1, "one event, though it may be sent twice under one id"


def test_bad_input_leaves_the_service_alive(client: httpx.Client) -> None:
    whole = png()
    assert client.post("/explain", files={"file": ("x.png", whole[: len(whole) // 2])}).status_code == 422
    assert client.post("/explain", files={"wrong": ("x.png", whole)}).status_code == 422
    assert client.post("/explain", files={"file": ("x.png", whole)}).status_code == 200


def test_every_stage_of_a_job_is_measured(system: Supervisor, client: httpx.Client) -> None:
    assert client.post("/explain", files={"file": ("x.png", png())}).status_code == 200
    worker = httpx.get(system.metrics["worker"]).text
    for stage in ("queued", "decode", "prefill", "generate", "total"):
        counted = re.search(rf'emx_job_stage_seconds_count{{stage="{stage}"}} (\S+)', worker)
        assert counted and float(counted[1]) > 0
    assert 'emx_job_outcomes_total{outcome="succeeded"}' in worker
    courier = httpx.get(system.metrics["courier"]).text
    assert "emx_reconcile_last_success_timestamp_seconds" in courier
    gateway = httpx.get(system.metrics["gateway"]).text
    assert 'emx_queue_depth{queue="stat"} 0.0' in gateway
    for process in (worker, courier, gateway):
        assert "process_resident_memory_bytes" in process


def test_the_workstation_is_served(client: httpx.Client) -> None:
    page = client.get("/")
    assert "ExplainMyXray" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for path in re.findall(r'(?:src|href)="\./(assets/[^"]+)"', page.text):
        found = client.get(path)
        assert found.status_code == 200
        assert "immutable" in found.headers["cache-control"]


def test_no_other_user_can_read_what_is_kept_or_reach_redis(system: Supervisor, client: httpx.Client) -> None:
    wait(client, client.post("/v1/jobs", files={"file": ("x.png", png())}).headers["location"], 60)
    kept = [system.data, *system.data.rglob("*")]
    assert len(kept) > 10
    assert not [path for path in kept if path.stat().st_mode & 0o077]
    redis_part = next(part for part in system.parts if part.name == "redis")
    port = int(redis_part.command[redis_part.command.index("--port") + 1])
    with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    assert not any("requirepass" in argument for argument in redis_part.command)


@pytest.mark.parametrize(("host", "private"), [("127.0.0.1", "true"), ("0.0.0.0", "false")])
def test_webhooks_reach_private_addresses_only_from_a_system_on_loopback(
    host: str, private: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMX_HOST", host)
    assert Supervisor(1, tmp_path)._environment("")["EMX_WEBHOOK_ALLOW_PRIVATE"] == private
