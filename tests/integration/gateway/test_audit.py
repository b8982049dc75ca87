"""Who did what, from where, and who was refused it; and what happens where that can't be written."""

import json
import os
import subprocess
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from emx_gateway.auth.authenticator import NOTICED_AFTER
from emx_shared.api_keys import KeyRing
from emx_shared.store.directory import DirectoryStore
from support.gateway import RunningGateway, StartGateway

EMX = Path(sysconfig.get_path("scripts")) / "emx"


@dataclass
class Audited:
    """A gateway with keys and no setting for its log, and a caller with a key of its own."""

    gateway: RunningGateway
    client: httpx.Client
    folder: Path
    ring: KeyRing
    key: str

    def lines(self, **wanted: Any) -> list[dict[str, Any]]:
        log = self.folder / "audit.jsonl"
        found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [line for line in found if wanted.items() <= line.items()]


@pytest.fixture
def audited(redis_url: str, tmp_path: Path, start_gateway: StartGateway) -> Iterator[Audited]:
    ring = KeyRing(DirectoryStore(tmp_path / "store"))
    key, text = ring.create("north")
    with (
        start_gateway(redis_url, tmp_path / "store", EMX_EXPLAIN_TIMEOUT="20") as gateway,
        httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {text}"}, timeout=30) as client,
    ):
        yield Audited(gateway, client, tmp_path, ring, key.id)


def files(gateway: RunningGateway) -> dict[str, Any]:
    return {"files": {"file": ("Jane Doe.png", gateway.png())}}


def read_soon(gateway: RunningGateway) -> threading.Thread:
    """Read the next job of any queue as soon as there is one."""

    def work() -> None:
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            for entry in list(gateway.ledger.store.list("open/")):
                with suppress(AssertionError):
                    gateway.read_by_a_worker(entry.key.removeprefix("open/"))
                    return
            time.sleep(0.05)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_where_there_are_keys_a_log_is_kept_without_being_asked_for(audited: Audited) -> None:
    client, gateway = audited.client, audited.gateway
    worker = read_soon(gateway)
    waited = client.post("/v1/jobs", **files(gateway), headers={"Prefer": "wait=20"}).json()["id"]
    worker.join()
    worker = read_soon(gateway)
    explained = client.post("/explain", **files(gateway)).json()["id"]
    worker.join()
    for job in (waited, explained):
        assert [line["action"] for line in audited.lines(subject=job)] == ["job.submit", "report.read"]
    client.get("/v1/jobs", params={"patient": "Jane Doe"})
    client.get("/v1/jobs", params={"finding": "pleural_effusion", "include": "summary"})
    for subject in ("patient", "finding", "summary"):  # what says something of patients
        assert len(audited.lines(action="jobs.list", subject=subject)) == 1
    upload = client.post("/v1/uploads").json()["id"]
    assert audited.lines(action="upload.create", subject=upload)
    ours = audited.lines(key=audited.key)
    assert len(ours) == 8 and all(line["tenant"] == "north" and line["address"] == "127.0.0.1" for line in ours)
    assert "Jane" not in (audited.folder / "audit.jsonl").read_text()
    assert (audited.folder / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def test_who_is_refused_is_written_down_but_strangers_fill_no_disk(audited: Audited) -> None:
    _, reader = audited.ring.create("north", ("read",))
    httpx.post(f"{audited.gateway.url}/v1/jobs", headers={"Authorization": f"Bearer {reader}"})
    assert audited.lines(action="refused", subject="out-of-scope", tenant="north")
    audited.client.post("/v1/jobs", files={"file": ("x.png", b"no image")})
    assert audited.lines(action="refused", subject="not-an-image", key=audited.key)
    for _ in range(100):
        httpx.get(f"{audited.gateway.url}/v1/jobs")
    strangers = audited.lines(action="refused", subject="unauthenticated")
    assert 10 < len(strangers) <= 60 and strangers[0]["tenant"] is None


def test_a_log_that_is_rotated_is_continued_in_a_new_file(audited: Audited) -> None:
    audited.client.post("/v1/uploads")
    (audited.folder / "audit.jsonl").rename(audited.folder / "audit.jsonl.1")
    audited.client.post("/v1/uploads")
    assert len(audited.lines(action="upload.create")) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full is simulated by /dev/full")
def test_a_full_audit_disk_refuses_before_anything_is_stored_or_shown(
    redis_url: str, tmp_path: Path, start_gateway: StartGateway
) -> None:
    with start_gateway(redis_url, tmp_path) as gateway:
        job = gateway.submit(gateway.png()).json()["id"]
        gateway.read_by_a_worker(job)
    with start_gateway(redis_url, tmp_path, EMX_AUDIT_LOG="/dev/full") as gateway:
        before = {entry.key for entry in gateway.ledger.store.list("")}
        batch = gateway.client.post("/v1/batches", files=[("files", ("x.png", gateway.png()))])
        for refused in (
            gateway.submit(gateway.png()),
            batch,
            gateway.client.get(f"/v1/jobs/{job}"),
            gateway.client.get(f"/v1/jobs/{job}/report.txt"),
            gateway.client.get(f"/v1/jobs/{job}/input"),
            gateway.client.delete(f"/v1/jobs/{job}"),
        ):
            gateway.problem(refused, 507, "audit-unavailable")
        assert {entry.key for entry in gateway.ledger.store.list("")} == before


def test_making_and_revoking_keys_is_written_down(audited: Audited) -> None:
    own = {**os.environ, "EMX_STORE": f"file:{audited.folder / 'store'}"}
    made = subprocess.run([EMX, "keys", "create", "--json"], env=own, capture_output=True, text=True, check=True)
    id = json.loads(made.stdout)["id"]
    subprocess.run([EMX, "keys", "revoke", id], env=own, capture_output=True, check=True)
    assert [line["action"] for line in audited.lines(subject=id)] == ["key.create", "key.revoke"]


def test_a_revoked_key_receives_nothing_more_on_open_streams(audited: Audited) -> None:
    gateway, client = audited.gateway, audited.client
    client.post("/v1/webhooks/secrets/rotate")
    job = client.post("/v1/jobs", **files(gateway)).json()["id"]
    batch = client.post("/v1/batches", files=[("files", ("x.png", gateway.png()))]).json()["id"]
    received: dict[str, bytes] = {}

    def receive(path: str) -> None:
        received[path] = b""
        with suppress(httpx.HTTPError), client.stream("GET", path) as stream:
            for part in stream.iter_bytes():
                received[path] += part

    paths = (f"/v1/jobs/{job}/events", f"/v1/batches/{batch}/results.ndjson?follow=true", "/v1/webhooks/listen")
    readers = [threading.Thread(target=receive, args=(path,), daemon=True) for path in paths]
    for reader in readers:
        reader.start()
    time.sleep(1)
    audited.ring.revoke(audited.key)
    time.sleep(NOTICED_AFTER + 0.5)
    gateway.read_by_a_worker(job)
    gateway.ledger.queue.advance_batch(batch)
    time.sleep(3)
    assert not [path for path, content in received.items() if b"There is fluid" in content]
