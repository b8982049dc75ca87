"""Endpoints that never answer, that are overloaded, and others beside them; a real courier sends."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from emx_gateway.courier.dispatcher import WebhookDispatcher
from emx_gateway.services.webhook_sender import Sender
from emx_shared.ledger import Ledger, object_keys
from emx_shared.ledger.records import Delivery
from support.gateway import RunningGateway, StartGateway

MANY = 100


class BlackHole:
    """Accepts every connection, and never answers."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/hook"
        self.tries = 0
        self._held: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self._held.append(self._socket.accept()[0])
            except OSError:
                return
            self.tries += 1

    def close(self) -> None:
        self._socket.close()
        for one in self._held:
            one.close()


@contextmanager
def endpoint(status: int, headers: dict[str, str] | None = None) -> Iterator[tuple[str, list[float]]]:
    """An endpoint that answers so; yields its URL and when it was called."""
    calls: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            calls.append(time.monotonic())
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", calls
    server.shutdown()
    server.server_close()


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)


@contextmanager
def running_courier(gateway: RunningGateway, folder: Path, redis_url: str) -> Iterator[None]:
    own = {"EMX_STORE": f"file:{folder}", "EMX_REDIS": redis_url, "EMX_WEBHOOK_ALLOW_PRIVATE": "true"}
    own |= {"EMX_WEBHOOK_TIMEOUT": "3", "EMX_RECONCILE_EVERY": "0.5"}
    command = [sys.executable, "-P", "-m", "emx_gateway.courier"]
    process = subprocess.Popen(command, env={**os.environ, **own})
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_an_endpoint_that_never_answers_delays_nobody_else(
    redis_url: str, tmp_path: Path, start_gateway: StartGateway
) -> None:
    hole = BlackHole()
    with (
        start_gateway(redis_url, tmp_path, EMX_WEBHOOK_ALLOW_PRIVATE="true") as gateway,
        endpoint(204) as (url, calls),
    ):
        gateway.client.post("/v1/webhooks/secrets/rotate")
        for target in [hole.url] * MANY + [url]:
            gateway.read_by_a_worker(gateway.submit(gateway.png(), webhook_url=target).json()["id"])
        with running_courier(gateway, tmp_path, redis_url):
            wait_for(lambda: calls)
            assert hole.tries < MANY / 4, "the endpoint that answers waited for the others"
            (dead, *_) = gateway.client.get("/v1/webhooks/deliveries", params={"status": "owed"}).json()["items"]
            time.sleep(10)
            paused = hole.tries
            assert paused < MANY / 4, "it is paused, not tried with each webhook that is owed"
            gateway.client.post(f"/v1/webhooks/deliveries/{dead['id']}/redeliver").raise_for_status()
            wait_for(lambda: hole.tries > paused, 20)
    hole.close()


@pytest.fixture
def dispatcher(ledger: Ledger) -> WebhookDispatcher:
    ledger.settings.webhook_allow_private = True
    return WebhookDispatcher(ledger, Sender(ledger))


def owed(ledger: Ledger, url: str, number: int = 0) -> Delivery:
    now = ledger.now()
    made = Delivery(id=f"d{number}", job="j", url=url, event="job.succeeded", created_at=now, next_at=now)
    ledger.store.put(object_keys.outbox(made.id), made.dump())
    return made


def sent(ledger: Ledger, dispatcher: WebhookDispatcher, delivery: Delivery) -> Delivery:
    """Dispatch a delivery, and return its record afterwards."""
    dispatcher.dispatch(delivery.id)
    wait_for(lambda: ledger.delivery(delivery.id) != delivery)
    found = ledger.delivery(delivery.id)
    assert found
    return found


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_heeded_by_all_that_is_owed_there(
    ledger: Ledger, dispatcher: WebhookDispatcher, as_date: bool
) -> None:
    wanted = format_datetime(ledger.now() + timedelta(seconds=3600), usegmt=True) if as_date else "3600"
    with endpoint(429, {"Retry-After": wanted}) as (url, calls):
        first = sent(ledger, dispatcher, owed(ledger, url, 1))
        second = sent(ledger, dispatcher, owed(ledger, url, 2))
    for found in (first, second):
        assert (found.next_at - ledger.now()).total_seconds() > 3500
    assert (first.tries, second.tries, len(calls)) == (1, 0, 1)


def test_a_fault_of_one_address_pauses_no_other_tenants(ledger: Ledger, dispatcher: WebhookDispatcher) -> None:
    with endpoint(500) as (url, calls):
        for number in range(5):
            sent(ledger, dispatcher, owed(ledger, url, number))
        other = owed(ledger, url, 9).model_copy(update={"tenant": "another"})
        ledger.store.put(object_keys.outbox(other.id), other.dump())
        before = len(calls)
        assert sent(ledger, dispatcher, other).tries == 1
    assert before == 3 and len(calls) == 4


@pytest.mark.parametrize("wanted", ["", "soon", "-5", "Wed, 99 Foo 2026"])
def test_a_retry_after_that_says_nothing_is_none(
    ledger: Ledger, dispatcher: WebhookDispatcher, wanted: str
) -> None:
    with endpoint(503, {"Retry-After": wanted}) as (url, _):
        found = sent(ledger, dispatcher, owed(ledger, url))
    assert found.tries == 1 and 4 < (found.next_at - ledger.now()).total_seconds() < 9


def test_a_try_that_another_courier_makes_leaves_the_endpoint_free(
    ledger: Ledger, dispatcher: WebhookDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emx_gateway.courier.endpoint_health.FIRST_PAUSE", 0.01)
    with endpoint(500) as (url, _):
        for number in range(3):
            sent(ledger, dispatcher, owed(ledger, url, number))
    time.sleep(0.1)  # its pause is over
    taken = owed(ledger, url, 7)
    assert ledger.redis.leases.take(f"delivery:{taken.id}", "another courier's")
    dispatcher.dispatch(taken.id)
    wait_for(lambda: not dispatcher._in_hand)
    assert dispatcher._health.seconds_paused(f"default {url.split('/')[2]}") == 0, "the next may try"
