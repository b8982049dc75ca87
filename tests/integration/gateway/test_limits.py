"""What anyone may send before the server knows who it is, and how much it holds for everyone."""

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from emx_shared.api_keys import KeyRing
from emx_shared.store.directory import DirectoryStore
from support.gateway import RunningGateway, StartGateway
from support.raw_http import answer, connect, send_until_answered

HEAD = b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n"
LATE = 2.0


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A store's folder, and the API keys of two tenants."""
    folder = tmp_path_factory.mktemp("store")
    ring = KeyRing(DirectoryStore(folder))
    return folder, {tenant: ring.create(tenant)[1] for tenant in ("north", "south")}


@pytest.fixture(scope="module")
def gateway(
    redis_url: str, keys: tuple[Path, dict[str, str]], start_gateway: StartGateway
) -> Iterator[RunningGateway]:
    limits = {
        "EMX_RECEIVE_TIMEOUT": str(LATE),
        "EMX_MAX_BYTES_IN_HAND": "8000000",
        "EMX_MAX_UPLOAD_BYTES": "3000000",
    }
    with start_gateway(redis_url, keys[0], **limits, EMX_MAX_CONNECTIONS="60") as made:
        yield made


def memory(gateway: RunningGateway) -> float:
    """Return the resident megabytes of the gateway's process, as it says itself."""
    lines = gateway.client.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("process_resident_memory_bytes")) / 1e6


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (HEAD, b"X-Many: " + b"x" * 1000 + b"\r\n"),
        (HEAD, b"X: y\r\n"),
        (HEAD + b"X-Endless: ", b"x" * 10_000),
        (b"GET /", b"x" * 10_000),
        (
            b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
            b"x" * 10_000,
        ),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 10_000),
    ],
    ids=["long headers", "many headers", "an endless header", "an endless path", "trailers", "chunk extensions"],
)
def test_headers_without_end_are_refused_and_take_no_memory(
    gateway: RunningGateway, start: bytes, more: bytes
) -> None:
    before = memory(gateway)
    with connect(gateway.url) as connection:
        connection.sendall(start)
        send_until_answered(connection, more, 48 * 2**20 // len(more))
        status, problem = answer(connection)
    assert status in (431, 401, 0)  # a reset may overtake the answer
    if status == 431:
        assert problem["type"] == "urn:explainmyxray:problem:headers-too-large"
    assert memory(gateway) < before + 30


def test_too_many_headers_are_answered_431(gateway: RunningGateway) -> None:
    with connect(gateway.url) as connection:
        connection.sendall(HEAD + b"X: y\r\n" * 200 + b"\r\n")
        assert answer(connection)[0] == 431
    with connect(gateway.url) as connection:
        connection.sendall(HEAD + b"X: " + b"y" * 66_000 + b"\r\n\r\n")
        assert answer(connection)[0] == 431


def test_a_head_that_doesnt_end_is_answered_408_and_a_silent_connection_closed(gateway: RunningGateway) -> None:
    silent, slow = connect(gateway.url), connect(gateway.url)
    slow.sendall(HEAD)
    began = time.monotonic()
    assert answer(slow)[0] == 408
    assert answer(silent) == (0, None)
    assert LATE - 0.5 < time.monotonic() - began < LATE + 8
    slow.close()
    silent.close()


def test_a_second_request_must_come_whole_as_well(gateway: RunningGateway) -> None:
    with connect(gateway.url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200")
        connection.sendall(HEAD)
        assert answer(connection)[0] == 408


def test_a_slow_body_is_answered_408(gateway: RunningGateway, keys: tuple[Path, dict[str, str]]) -> None:
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {keys[1]['north']}\r\n"
    with connect(gateway.url) as connection:
        connection.sendall(f"{head}Content-Type: image/png\r\nContent-Length: 1000\r\n\r\nx".encode())
        status, problem = answer(connection)
    assert (status, problem["type"]) == (408, "urn:explainmyxray:problem:too-slow")


def test_bytes_that_arent_http_are_answered_with_a_problem(gateway: RunningGateway) -> None:
    with connect(gateway.url) as connection:
        connection.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        status, problem = answer(connection)
    assert (status, problem["type"]) == (400, "urn:explainmyxray:problem:bad-http")


def test_a_bounded_number_of_connections_is_held(gateway: RunningGateway) -> None:
    held = [connect(gateway.url) for _ in range(70)]
    answered = []
    for connection in held[-5:]:
        answered.append(answer(connection)[0])
    assert answered == [503] * 5
    for connection in held:
        connection.close()
    time.sleep(0.2)
    assert httpx.get(f"{gateway.url}/healthz").text == "ok"


def test_a_tenant_that_withholds_its_bodies_keeps_no_other_waiting(
    gateway: RunningGateway, keys: tuple[Path, dict[str, str]]
) -> None:
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {keys[1]['north']}\r\n"
    withheld = f"{head}Content-Type: image/png\r\nContent-Length: 2900000\r\n\r\n".encode()
    before = memory(gateway)
    held = [connect(gateway.url) for _ in range(12)]
    for connection in held:
        connection.sendall(withheld)
        threading.Thread(target=send_until_answered, args=(connection, b"x" * 100_000, 28), daemon=True).start()
    time.sleep(0.5)
    began = time.monotonic()
    own = {"Authorization": f"Bearer {keys[1]['south']}", "Content-Type": "image/png"}
    assert httpx.post(f"{gateway.url}/v1/jobs", content=gateway.png(), headers=own).status_code == 202
    assert time.monotonic() - began < LATE
    assert memory(gateway) < before + 30
    statuses = [answer(connection)[0] for connection in held]
    assert set(statuses) <= {408, 429, 0} and 408 in statuses
    for connection in held:
        connection.close()


def test_a_manifest_of_empty_lines_is_refused(gateway: RunningGateway, keys: tuple[Path, dict[str, str]]) -> None:
    own = {"Authorization": f"Bearer {keys[1]['south']}"}
    for kind, data in (
        ("text/csv", b"image\n" + b"\n" * 2_000_000),
        ("application/x-ndjson", b"\n" * 2_000_000),
    ):
        refused = httpx.post(
            f"{gateway.url}/v1/batches", content=data, headers={**own, "Content-Type": kind}, timeout=30
        )
        gateway.problem(refused, 413, "too-many-rows")
    wide = b",".join(b"c%d" % n for n in range(5000)) + b"\n"
    refused = httpx.post(
        f"{gateway.url}/v1/batches", content=wide, headers={**own, "Content-Type": "text/csv"}, timeout=30
    )
    gateway.problem(refused, 422, "invalid-request")


def test_a_server_that_stops_answers_those_who_wait(
    redis_url: str, tmp_path: Path, start_gateway: StartGateway
) -> None:
    found: dict[str, httpx.Response] = {}
    with start_gateway(redis_url, tmp_path) as gateway:
        job = gateway.submit(gateway.png()).json()["id"]

        def ask(name: str, method: str, path: str, **given: object) -> None:
            found[name] = httpx.request(method, gateway.url + path, timeout=30, **given)  # type: ignore[arg-type]

        image = {"files": {"file": ("x.png", gateway.png())}}
        waiting = [
            threading.Thread(target=ask, args=("poll", "GET", f"/v1/jobs/{job}?wait=50")),
            threading.Thread(
                target=ask, args=("prefer", "POST", "/v1/jobs"), kwargs={**image, "headers": {"Prefer": "wait=50"}}
            ),
            threading.Thread(target=ask, args=("explain", "POST", "/explain"), kwargs=image),
        ]
        for each in waiting:
            each.start()
        slow = connect(gateway.url)
        slow.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\nx"
        )
        time.sleep(1)
        (process,) = _processes_on(gateway)
        began = time.monotonic()
        subprocess.run(["kill", "-TERM", str(process)], check=True)
        for each in waiting:
            each.join(10)
        assert time.monotonic() - began < 4
        status, problem = answer(slow)
        slow.close()
    assert (found["poll"].status_code, found["poll"].json()["state"]) == (200, "queued")
    assert (found["prefer"].status_code, found["prefer"].json()["state"]) == (202, "queued")
    gateway.problem(found["explain"], 503, "stopping")
    assert found["explain"].headers["location"].startswith("/v1/jobs/")
    assert (status, problem["type"]) == (503, "urn:explainmyxray:problem:stopping")


def _processes_on(gateway: RunningGateway) -> list[int]:
    """Return the ids of the processes that listen on the gateway's port."""
    port = int(gateway.url.rpartition(":")[2])
    return [
        found.pid or 0
        for found in psutil.net_connections("tcp")
        if found.status == "LISTEN" and found.laddr and found.laddr[1] == port
    ]
