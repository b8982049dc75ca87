"""Keys, scopes, tenants, limits and the audit log."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from emx_gateway.app import ROUTES
from emx_gateway.auth.authenticator import NOTICED_AFTER
from emx_shared.api_keys import BadKeyRequest, KeyRing
from emx_shared.ledger import advance_batch
from emx_shared.store.directory import DirectoryStore
from support.gateway import RunningGateway, StartGateway


@dataclass
class GatewayOfNorth(RunningGateway):
    ring: KeyRing
    audit: Path
    key: str


@pytest.fixture(scope="module")
def north(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, start_gateway: StartGateway
) -> Iterator[GatewayOfNorth]:
    """A gateway with keys of the tenants north and south; it knocks with north's. Beyond loopback, too."""
    folder = tmp_path_factory.mktemp("keyed")
    ring = KeyRing(DirectoryStore(folder / "store"))
    _, key = ring.create("north", name="the ward's")
    with start_gateway(redis_url, folder / "store", EMX_AUDIT_LOG=str(folder / "audit.jsonl")) as made:
        made.client.headers["Authorization"] = f"Bearer {key}"
        yield GatewayOfNorth(made.client, made.ledger, ring, folder / "audit.jsonl", key)


@contextmanager
def using(gateway: RunningGateway, key: str) -> Iterator[httpx.Client]:
    before = gateway.client.headers["Authorization"]
    gateway.client.headers["Authorization"] = f"Bearer {key}"
    try:
        yield gateway.client
    finally:
        gateway.client.headers["Authorization"] = before


def test_without_a_good_key_nothing_is_shown(north: GatewayOfNorth) -> None:
    where = north.submit(north.png()).headers["location"]
    for shown in ("emx_000000000000_" + "x" * 43, "nonsense", north.key[:-1] + "~"):
        with using(north, shown) as client:
            answer = client.get(where)
            north.problem(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"].startswith("Bearer")
    answer = north.client.get(where, headers={"Authorization": "Basic eDp5"})
    north.problem(answer, 401, "unauthenticated")
    for path in ("/healthz", "/docs", "/openapi.json", "/"):
        assert north.client.get(path, headers={"Authorization": ""}).status_code == 200


def test_another_tenants_jobs_do_not_exist(north: GatewayOfNorth) -> None:
    north_job = north.submit(north.png(), patient="p1").json()["id"]
    _, south = north.ring.create("south")
    with using(north, south) as client:
        for method, path in (
            ("GET", ""),
            ("GET", "/input"),
            ("GET", "/report.txt"),
            ("GET", "/events"),
            ("POST", "/cancel"),
            ("DELETE", ""),
        ):
            north.problem(client.request(method, f"/v1/jobs/{north_job}{path}"), 404, "no-such-job")
        assert client.get("/v1/jobs").json()["items"] == []
        assert client.delete("/v1/jobs", params={"patient": "p1"}).json() == {"erased": 0}
    assert north.client.get(f"/v1/jobs/{north_job}").json()["state"] == "queued"


def test_a_repeated_idempotency_key_is_the_tenants_own(north: GatewayOfNorth) -> None:
    data, header = north.png(), {"Idempotency-Key": "the same"}
    _, south = north.ring.create("south")
    first = north.client.post("/v1/jobs", files={"file": data}, headers=header).json()["id"]
    again = north.client.post("/v1/jobs", files={"file": data}, headers=header).json()["id"]
    with using(north, south) as client:
        other = client.post("/v1/jobs", files={"file": data}, headers=header).json()["id"]
    assert first == again != other


def test_a_key_can_do_what_its_scopes_say(north: GatewayOfNorth) -> None:
    job = north.submit(north.png()).json()["id"]
    _, reads = north.ring.create("north", ("read",))
    _, submits = north.ring.create("north", ("submit",))
    with using(north, reads) as client:
        assert client.get(f"/v1/jobs/{job}").status_code == 200
        north.problem(north.submit(north.png()), 403, "out-of-scope")
        north.problem(client.delete(f"/v1/jobs/{job}"), 403, "out-of-scope")
    with using(north, submits) as client:
        assert north.submit(north.png()).status_code == 202
        north.problem(client.get(f"/v1/jobs/{job}"), 403, "out-of-scope")


def test_a_revoked_key_is_out_within_seconds(north: GatewayOfNorth) -> None:
    key, text = north.ring.create("north")
    with using(north, text) as client:
        assert client.get("/v1/jobs").status_code == 200
        north.ring.revoke(key.id)
        time.sleep(NOTICED_AFTER + 0.5)
        north.problem(client.get("/v1/jobs"), 401, "unauthenticated")


def test_who_did_what_is_written_down_and_nothing_of_a_patient(north: GatewayOfNorth) -> None:
    job = north.submit(north.png(), patient="Jane Doe", study="accession 7", metadata='{"a": "secret"}').json()[
        "id"
    ]
    north.read_by_a_worker(job)
    north.client.get(f"/v1/jobs/{job}")
    north.client.get(f"/v1/jobs/{job}/input")
    north.client.delete(f"/v1/jobs/{job}")
    lines = [json.loads(line) for line in north.audit.read_text().splitlines()]
    mine = [line for line in lines if line["subject"] == job]
    assert [line["action"] for line in mine] == ["job.submit", "report.read", "image.read", "job.erase"]
    assert {line["tenant"] for line in mine} == {"north"}
    assert all(north.key.split("_")[1] == line["key"] for line in mine)
    text = north.audit.read_text()
    assert "Jane" not in text and "accession" not in text and "secret" not in text
    assert north.key.split("_", 2)[2] not in text


def test_of_a_key_only_a_digest_is_kept(tmp_path: Path) -> None:
    ring = KeyRing(DirectoryStore(tmp_path))
    assert not ring.any()
    key, text = ring.create("north", ("read",), "laptop")
    kept = (tmp_path / "access" / key.id).read_text()
    assert text.removeprefix(f"emx_{key.id}_") not in kept
    assert ring.any() and ring.find(text) == key and ring.find(text + "x") is None
    assert ring.revoke(key.id).revoked_at
    assert ring.find(text) is None and ring.any()
    assert [shown.prefix for shown in ring.list()] == [f"emx_{key.id}_…"]


@pytest.mark.parametrize(("tenant", "scopes"), [("", ("read",)), ("A b", ("read",)), ("n", ()), ("n", ("all",))])
def test_a_key_that_cannot_be_is_refused(tmp_path: Path, tenant: str, scopes: Any) -> None:
    with pytest.raises(BadKeyRequest):
        KeyRing(DirectoryStore(tmp_path)).create(tenant, scopes)


def test_a_tenant_that_is_too_quick_is_told_when_to_come_back(
    redis_url: str, tmp_path: Path, start_gateway: StartGateway
) -> None:
    with start_gateway(redis_url, tmp_path, EMX_READ_LIMIT="5/minute") as gateway:
        answers = [gateway.client.get("/v1/jobs") for _ in range(7)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
        assert answers[0].headers["ratelimit-policy"] == '"read";q=5;w=60'
        assert answers[0].headers["ratelimit"].startswith('"read";r=4;t=')
        assert 0 < int(answers[-1].headers["retry-after"]) <= 60
        assert gateway.submit(gateway.png()).status_code == 202


def test_a_tenants_day_has_an_end(redis_url: str, tmp_path: Path, start_gateway: StartGateway) -> None:
    with start_gateway(redis_url, tmp_path, EMX_DAILY_QUOTA="3") as gateway:
        gateway.ledger.redis.connection.client.flushall()
        assert gateway.submit(gateway.png()).status_code == 202
        rows, kind = '{"image": "import:a.png"}\n', {"Content-Type": "application/x-ndjson"}
        answer = gateway.client.post("/v1/batches", content=rows * 3, headers=kind)
        gateway.problem(answer, 429, "quota-exceeded")
        assert int(answer.headers["retry-after"]) > 3600
        assert gateway.client.post("/v1/batches", content=rows * 2, headers=kind).status_code == 202
        gateway.problem(gateway.submit(gateway.png()), 429, "quota-exceeded")
        uploads = [gateway.client.post("/v1/uploads") for _ in range(4)]
        assert [each.status_code for each in uploads] == [201, 201, 201, 429]


def test_a_full_queue_refuses_and_writes_nothing(
    redis_url: str, tmp_path: Path, start_gateway: StartGateway
) -> None:
    with start_gateway(redis_url, tmp_path, EMX_MAX_QUEUED_PER_TENANT="2") as gateway:
        gateway.ledger.redis.connection.client.delete("line:routine:default", "round:routine")
        for _ in range(2):
            assert gateway.submit(gateway.png()).status_code == 202
        before = sorted(str(file) for file in tmp_path.rglob("*"))
        answer = gateway.submit(gateway.png())
        gateway.problem(answer, 429, "too-many-queued")
        assert answer.headers["retry-after"]
        assert sorted(str(file) for file in tmp_path.rglob("*")) == before


def test_other_origins_get_in_only_where_they_are_named(
    redis_url: str, tmp_path: Path, start_gateway: StartGateway
) -> None:
    origin = {"Origin": "https://viewer.example"}
    with start_gateway(redis_url, tmp_path, EMX_CORS_ORIGINS='["https://viewer.example"]') as gateway:
        assert (
            gateway.client.get("/v1/jobs", headers=origin).headers["access-control-allow-origin"]
            == origin["Origin"]
        )
        other = gateway.client.get("/v1/jobs", headers={"Origin": "https://else.example"})
        assert "access-control-allow-origin" not in other.headers


def test_by_default_no_other_origin_gets_in(gateway: RunningGateway) -> None:
    answer = gateway.client.get("/v1/jobs", headers={"Origin": "https://viewer.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_no_endpoint_has_its_body_read_before_it_is_known_who_calls() -> None:
    routes = [route for room in ROUTES for route in room.router.routes if isinstance(route, APIRoute)]
    assert len(routes) > 30
    assert [route.path for route in routes if route.body_field] == []


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/batches", "/v1/webhooks/ping", "/explain"])
def test_a_stranger_is_turned_away_before_the_body_is_sent(north: GatewayOfNorth, path: str) -> None:
    host, port = north.client.base_url.host, north.client.base_url.port
    with socket.create_connection((host, port), timeout=10) as stranger:
        head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        stranger.sendall(f"{head}Content-Length: 100000\r\n\r\n{{".encode())
        assert stranger.recv(100).startswith(b"HTTP/1.1 401 ")


def test_json_has_a_bound_of_its_own(north: GatewayOfNorth) -> None:
    long = {"upload": "x" * 300_000}
    for path in ("/v1/jobs", "/v1/webhooks/ping"):
        north.problem(north.client.post(path, json=long), 413, "body-too-large")


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"Host": "rebound.example:8000"}, "keyless-elsewhere"),
        ({"Host": "[::1"}, "keyless-elsewhere"),
        ({"Host": "192.0.2.1"}, "keyless-elsewhere"),
        ({"Origin": "https://else.example"}, "foreign-page"),
        ({"Origin": "null"}, "foreign-page"),
        ({"Sec-Fetch-Site": "cross-site"}, "foreign-page"),
    ],
)
def test_without_keys_pages_of_other_sites_are_turned_away(
    gateway: RunningGateway, headers: dict[str, str], kind: str
) -> None:
    gateway.problem(gateway.client.get("/v1/jobs", headers=headers), 403, kind)
    refused = gateway.client.post(
        "/v1/jobs", content=gateway.png(), headers={"Content-Type": "image/png", **headers}
    )
    gateway.problem(refused, 403, kind)


def test_without_keys_this_machines_pages_and_named_hosts_are_answered(
    redis_url: str, tmp_path: Path, start_gateway: StartGateway
) -> None:
    named = {"EMX_ALLOWED_HOSTS": '["xray.ward.example"]', "EMX_CORS_ORIGINS": '["https://viewer.example"]'}
    with start_gateway(redis_url, tmp_path, **named) as gateway:
        own = f"http://localhost:{gateway.client.base_url.port}"
        for headers in (
            {"Host": own.removeprefix("http://"), "Origin": own, "Sec-Fetch-Site": "same-origin"},
            {"Host": "[::1]:8000"},
            {"Host": "xray.ward.example"},
            {"Origin": "https://viewer.example", "Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        ):
            assert gateway.client.get("/v1/jobs", headers=headers).status_code == 200


def test_with_a_key_any_host_and_page_may_call(north: GatewayOfNorth) -> None:
    headers = {"Host": "xray.ward.example", "Origin": "https://else.example"}
    assert north.client.get("/v1/jobs", headers=headers).status_code == 200


def test_what_was_submitted_before_costs_nothing(
    redis_url: str, tmp_path: Path, start_gateway: StartGateway
) -> None:
    limits = {"EMX_DAILY_QUOTA": "4", "EMX_MAX_QUEUED_PER_TENANT": "1"}
    with start_gateway(redis_url, tmp_path, **limits) as gateway:
        gateway.ledger.redis.connection.client.flushall()
        data, key = gateway.png(), {"Idempotency-Key": "k"}
        image, rows = {"Content-Type": "image/png", **key}, {"Content-Type": "application/x-ndjson", **key}
        jobs = [gateway.client.post("/v1/jobs", content=data, headers=image).json() for _ in range(6)]
        assert len({job["id"] for job in jobs}) == 1
        manifest = '{"image": "import:a.png"}\n' * 2
        batches = [gateway.client.post("/v1/batches", content=manifest, headers=rows).json() for _ in range(3)]
        assert len({batch["id"] for batch in batches}) == 1
        advance_batch(gateway.ledger, batches[0]["id"])
        retry = f"/v1/batches/{batches[0]['id']}/retry"
        gateway.problem(gateway.client.post(retry), 429, "quota-exceeded")


def test_a_cancelled_job_waits_no_more(redis_url: str, tmp_path: Path, start_gateway: StartGateway) -> None:
    with start_gateway(redis_url, tmp_path, EMX_MAX_QUEUED_PER_TENANT="1") as gateway:
        gateway.ledger.redis.connection.client.delete("line:routine:default", "round:routine")
        first = gateway.submit(gateway.png()).headers["location"]
        gateway.problem(gateway.submit(gateway.png()), 429, "too-many-queued")
        gateway.client.post(f"{first}/cancel")
        second = gateway.submit(gateway.png())
        assert second.status_code == 202
        assert gateway.ledger.redis.turns.take("routine") == second.json()["id"]
