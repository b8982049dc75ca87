"""Webhooks: signed, told apart, sent again, and never to an address that isn't allowed."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from httpx_sse import connect_sse
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from emx_gateway.app import create_app
from emx_gateway.courier.dispatcher import WebhookDispatcher
from emx_gateway.services.webhook_sender import Sender
from emx_shared.ledger import EndpointAnswer, Ledger, deliver, object_keys
from emx_shared.ledger.records import Delivery
from emx_shared.settings import Settings
from emx_shared.webhooks import ForbiddenTarget, TooManySecrets, WebhookSecrets, WebhookTargets
from support.gateway import RunningGateway, StartGateway


class Endpoint:
    """Answers with each of ``statuses`` in turn, then 204; keeps headers and bodies."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.got: list[tuple[dict[str, str], bytes]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(endpoint.statuses.pop(0) if endpoint.statuses else 204)
                self.send_header("Location", endpoint.url)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.close()


@dataclass
class HookedGateway(RunningGateway):
    audit: Path
    secret: str


@pytest.fixture(scope="module")
def hooked(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, start_gateway: StartGateway
) -> Iterator[HookedGateway]:
    folder: Path = tmp_path_factory.mktemp("hooked")
    audit = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    with start_gateway(redis_url, folder, EMX_WEBHOOK_ALLOW_PRIVATE="true", EMX_AUDIT_LOG=str(audit)) as made:
        settings = made.ledger.settings.model_copy(update={"webhook_allow_private": True})
        secret = made.client.post("/v1/webhooks/secrets/rotate").json()["secret"]
        yield HookedGateway(made.client, replace(made.ledger, settings=settings), audit, secret)


def ended(hooked: HookedGateway, endpoint: Endpoint) -> str:
    """A job that has its report, and whose webhook is owed; the delivery's id."""
    job = hooked.submit(hooked.png(), webhook_url=endpoint.url).json()["id"]
    hooked.read_by_a_worker(job)
    (line,) = hooked.client.get("/v1/webhooks/deliveries", params={"job": job}).json()["items"]
    return str(line["id"])


def send(hooked: HookedGateway, delivery: str) -> Any:
    """What the courier does with a delivery that is due."""
    return deliver(hooked.ledger, delivery, Sender(hooked.ledger).send)


def test_the_official_client_verifies_what_arrives(hooked: HookedGateway, endpoint: Endpoint) -> None:
    delivery = ended(hooked, endpoint)
    assert send(hooked, delivery).status == "delivered"
    ((headers, body),) = endpoint.got
    event = Webhook(hooked.secret).verify(body, headers)
    assert event["type"] == "job.succeeded"
    assert event["data"]["report"]["findings"] == "There is fluid."
    with pytest.raises(WebhookVerificationError):
        Webhook(hooked.secret).verify(body + b" ", headers)
    line = hooked.client.get(f"/v1/webhooks/deliveries/{delivery}").json()
    assert (line["status"], line["tries"], line["last_answer"]) == ("delivered", 1, "204")


def test_after_a_rotation_both_secrets_verify(hooked: HookedGateway, endpoint: Endpoint) -> None:
    former, hooked.secret = hooked.secret, hooked.client.post("/v1/webhooks/secrets/rotate").json()["secret"]
    send(hooked, ended(hooked, endpoint))
    ((headers, body),) = endpoint.got
    assert former != hooked.secret
    for secret in (former, hooked.secret):
        Webhook(secret).verify(body, headers)
    secrets = WebhookSecrets(hooked.ledger.store, hooked.ledger.settings)
    assert secrets.active("default") == [hooked.secret, former]
    assert secrets.active("another") == []


def test_rotating_twice_takes_the_secret_in_use_from_nobody(ledger: Ledger) -> None:
    secrets = WebhookSecrets(ledger.store, ledger.settings)
    made = [secrets.rotate("north") for _ in range(3)]
    assert secrets.active("north") == made[::-1]
    with pytest.raises(TooManySecrets, match="Wait"):
        for _ in range(20):
            secrets.rotate("north")
    assert secrets.active("south") == [ledger.settings.webhook_secret]


def test_an_event_can_be_sent_again_under_the_id_it_had(hooked: HookedGateway, endpoint: Endpoint) -> None:
    delivery = ended(hooked, endpoint)
    assert hooked.client.post(f"/v1/webhooks/deliveries/{delivery}/redeliver").json()["id"] == delivery
    endpoint.statuses = [410]
    assert send(hooked, delivery).status == "undelivered"
    again = hooked.client.post(f"/v1/webhooks/deliveries/{delivery}/redeliver")
    assert again.status_code == 202
    assert again.json()["message"] == delivery != again.json()["id"]
    assert send(hooked, again.json()["id"]).status == "delivered"
    first, second = endpoint.got
    assert first[0]["webhook-id"] == second[0]["webhook-id"] == delivery
    lines = hooked.client.get("/v1/webhooks/deliveries", params={"job": again.json()["job"]}).json()["items"]
    assert [line["status"] for line in lines] == ["delivered", "undelivered"]
    found = hooked.client.get("/v1/webhooks/deliveries", params={"status": "undelivered", "limit": 1}).json()[
        "items"
    ]
    assert [line["id"] for line in found] == [delivery]
    hooked.problem(hooked.client.get("/v1/webhooks/deliveries/unknown"), 404, "no-such-delivery")


def test_no_redirect_is_followed(hooked: HookedGateway, endpoint: Endpoint) -> None:
    endpoint.statuses = [302]
    tried = send(hooked, ended(hooked, endpoint))
    assert (tried.status, tried.last_answer, len(endpoint.got)) == ("owed", "302", 1)


def test_an_endpoint_can_be_tried(hooked: HookedGateway, endpoint: Endpoint) -> None:
    assert hooked.client.post("/v1/webhooks/ping", json={"url": endpoint.url}).json()["ok"]
    assert Webhook(hooked.secret).verify(endpoint.got[0][1], endpoint.got[0][0])["type"] == "ping"
    endpoint.close()
    silent = hooked.client.post("/v1/webhooks/ping", json={"url": endpoint.url}).json()
    assert silent == {"status": None, "why": "ConnectError", "ok": False}
    hooked.problem(
        hooked.client.post("/v1/webhooks/ping", json={"url": "ftp://x"}), 422, "forbidden-webhook-target"
    )


def test_a_developer_can_listen(hooked: HookedGateway) -> None:
    events: list[Any] = []

    def listen() -> None:
        with connect_sse(hooked.client, "GET", "/v1/webhooks/listen") as source:
            ready.set()
            events.append(next(source.iter_sse()))

    ready = threading.Event()
    listener = threading.Thread(target=listen)
    listener.start()
    assert ready.wait(5)
    job = hooked.submit(hooked.png()).json()["id"]
    hooked.read_by_a_worker(job)
    listener.join(10)
    (heard,) = events
    sent = json.loads(heard.data)
    event = Webhook(hooked.secret).verify(sent["body"], sent["headers"])
    assert (heard.event, event["data"]["id"]) == ("job.succeeded", job)
    noted = [json.loads(line) for line in hooked.audit.read_text().splitlines()]
    assert [line["action"] for line in noted if line["subject"] == job] == ["job.submit", "report.read"]


def test_few_endpoints_are_tried_at_a_time(hooked: HookedGateway) -> None:
    def ping() -> Any:
        return hooked.client.post("/v1/webhooks/ping", json={"url": url})

    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(4) as pool:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/hook"
        tried = [pool.submit(ping) for _ in range(4)]
        connections = [silent.accept()[0] for _ in range(4)]
        fifth = ping()
        hooked.problem(fifth, 429, "too-many-pings")
        assert int(fifth.headers["retry-after"]) > 0
        for connection in connections:
            connection.close()
        assert {one.result().status_code for one in tried} == {200}
    assert ping().json()["why"] == "ConnectError"


def drip(connection: socket.socket) -> None:
    connection.recv(65_536)
    for byte in b"HTTP/1.1 200 OK\r\nx-more: and more, and more":
        connection.send(bytes([byte]))
        time.sleep(0.1)


def read_slowly(connection: socket.socket) -> None:
    for _ in range(40):
        connection.recv(262_144)
        time.sleep(0.1)


@contextmanager
def serving(one: Callable[[socket.socket], None]) -> Iterator[str]:
    """host:port of a server that treats its first connection so."""

    def accept() -> None:
        with suppress(OSError), listener.accept()[0] as connection:
            one(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)  # if nobody connects, it waits for ever
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


@pytest.mark.parametrize(
    ("scheme", "one", "why"),
    [
        ("http", drip, "ReadTimeout"),
        ("http", read_slowly, "WriteTimeout"),
        ("https", read_slowly, "ConnectTimeout"),
    ],
)
def test_a_send_ends_at_its_deadline_however_slowly_the_endpoint_goes_on(
    ledger: Ledger, scheme: str, one: Callable[[socket.socket], None], why: str
) -> None:
    sender = hurried(ledger)
    event = {"type": "ping", "data": "x" * (40_000_000 if why == "WriteTimeout" else 10)}
    with serving(one) as place:
        began = time.monotonic()
        answer = sender.post(f"{scheme}://{place}/hook", "default", "m", event)
        assert time.monotonic() - began < 3.5
    assert (answer.status, answer.why) == (None, why)


def hurried(ledger: Ledger, **settings: Any) -> Sender:
    """A sender to anywhere, with a second and a half."""
    chosen = {"webhook_timeout": 1.5, "webhook_allow_private": True, **settings}
    return Sender(replace(ledger, settings=ledger.settings.model_copy(update=chosen)))


def test_whatever_goes_wrong_with_a_send_is_an_answer_and_nothing_of_it_is_logged(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    """Else the outbox would try for ever. Here the operator's secret isn't base64."""
    answer = hurried(ledger, webhook_secret="whsec_hunte").post(
        "http://127.0.0.1:1/hook?token=hunter2", "default", "m1", {"data": "Jane Doe"}
    )
    assert (answer.status, answer.why, answer.ok) == (None, "Error", False)
    assert "m1" in caplog.text
    assert "hunte" not in caplog.text and "Jane" not in caplog.text


def test_the_lease_of_a_delivery_outlasts_its_sending(ledger: Ledger) -> None:
    now = ledger.store.now()
    owed = Delivery(id="d", job="j", url="https://example.org", event="ping", created_at=now, next_at=now)
    ledger.store.put(object_keys.outbox("d"), owed.dump())
    lasts: list[int] = []

    class Sending:
        def send(self, _: Delivery) -> EndpointAnswer:
            lasts.append(ledger.redis.connection.client.pttl("lease:delivery:d"))
            return EndpointAnswer(204)

    dispatcher = WebhookDispatcher(ledger, cast(Sender, Sending()))
    dispatcher.dispatch("d")
    dispatcher.dispatch("d")  # it is in hand already
    while ledger.store.exists(object_keys.outbox("d")) or ledger.redis.leases.is_held("delivery:d"):
        time.sleep(0.02)
    assert len(lasts) == 1
    assert lasts[0] > ledger.settings.webhook_timeout * 1000 > ledger.settings.lease * 1000


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "100.64.0.1",
        "[::1]",
        "[fe80::1]",
        "[fc00::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "2130706433",
        "0x7f.1",
        "localhost",
        "192.0.0.9",
        "192.88.99.1",
        "[fec0::1]",
        "[64:ff9b:1::5db8:d822]",
        "[64:ff9b::c000:9]",
        "[2001:0:5db8:d822::a247:27dd]",
    ],
)
def test_no_address_that_is_not_public_is_a_target(host: str) -> None:
    with pytest.raises(ForbiddenTarget):
        WebhookTargets().check(f"https://{host}/hook")


@pytest.mark.parametrize("url", ["https://é.example/", "https://93.184.216.34/é", "https://x/ y", "https://x/\n"])
def test_a_url_is_of_printable_ascii(url: str) -> None:
    with pytest.raises(ForbiddenTarget, match="punycode"):
        WebhookTargets().check(url)


@pytest.mark.parametrize(
    "url", ["http://93.184.216.34/", "https://u:p@93.184.216.34/", "https://", "x", "https://[/"]
)
def test_a_url_that_is_not_plain_https_is_refused(url: str) -> None:
    with pytest.raises(ForbiddenTarget):
        WebhookTargets().check(url)


def test_what_is_allow_listed_is_admitted() -> None:
    import ipaddress

    WebhookTargets().check("https://93.184.216.34/hook")
    inside = WebhookTargets(allowed=(ipaddress.ip_network("10.2.0.0/16"),))
    inside.check("https://10.2.3.4/hook")
    with pytest.raises(ForbiddenTarget):
        inside.check("https://10.3.0.1/hook")
    WebhookTargets(allowed=(ipaddress.ip_network("fec0::/16"),)).check("https://[fec0::1]/hook")


def test_a_name_that_means_another_address_when_connecting_is_refused(
    hooked: HookedGateway, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when it is checked, loopback when it is connected to."""
    answers = ["93.184.216.34", "127.0.0.1"]

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        address = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    strict = hooked.ledger.settings.model_copy(update={"webhook_allow_private": False})
    sender = Sender(replace(hooked.ledger, settings=strict))
    port = endpoint.url.rsplit(":", 1)[1].partition("/")[0]
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    answer = sender.post(f"https://rebound.example:{port}/hook", "default", "m", {"type": "ping"})
    assert (answer.status, answer.why) == (None, "forbidden target")
    assert answers == ["127.0.0.1"] and not endpoint.got


def test_a_name_server_that_is_slow_or_unavailable_refuses_no_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hung(*_: Any, **__: Any) -> list[Any]:
        released.wait(30)
        return []

    def unavailable(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    def unknown(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    for answer in (hung, unavailable):
        monkeypatch.setattr(socket, "getaddrinfo", answer)
        WebhookTargets().check("https://ris.example.org/hook")
    released.set()
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ForbiddenTarget, match="has no address"):
        WebhookTargets().check("https://ris.example.org/hook")


async def _longest_standstill(redis_url: str, store: Path) -> float:
    """Submit a batch with a webhook, and return the longest that the event loop stood still, in seconds."""
    chosen = Settings(store=f"file:{store}", redis=redis_url, webhook_secret="whsec_" + "c2VjcmV0" * 4)
    standstills: list[float] = []

    async def watch() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            standstills.append(time.monotonic() - began)

    transport = httpx.ASGITransport(create_app(chosen))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        watching = asyncio.create_task(watch())
        answer = await client.post(
            "/v1/batches",
            params={"webhook_url": "https://ris.example.org/hook"},
            content='{"image": "import:a.png"}\n',
            headers={"Content-Type": "application/x-ndjson"},
        )
        watching.cancel()
    assert answer.status_code == 202
    return max(standstills)


def test_looking_a_webhooks_name_up_holds_up_nobody_else(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def slow(host: str, *others: Any, **options: Any) -> list[Any]:
        if host == "127.0.0.1":  # Redis
            return real(host, *others, **options)
        time.sleep(1.5)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    assert asyncio.run(_longest_standstill(redis_url, tmp_path)) < 1
