"""A webhook receiver that fails at random, and remembers what it took."""

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

Fault = Literal["500", "503", "no answer", "answer lost"]
_FAULTS: tuple[Fault, ...] = ("500", "503", "no answer", "answer lost")


@dataclass(frozen=True)
class Taken:
    """An event that the receiver has answered with 2xx.

    Attributes:
        message: the header webhook-id.
        event: such as job.succeeded.
        subject: id of the job or the batch.
    """

    message: str
    event: str
    subject: str


class WebhookReceiver:
    """Takes events while it is entered.

    Of the tries of an event it lets some fail, by a hash of the seed, the event's id and the number of the try:
    with a status, without an answer, or by losing its answer after it took the event.
    """

    def __init__(self, secret: str, seed: int, most: int, share: float = 0.1) -> None:
        """Listen on a free port.

        Args:
            secret: whsec_…, with which events are signed.
            seed: of the faults.
            most: tries of one event that may fail: couriers pause for five seconds after the first, then for ten.
            share: of the tries that fail.
        """
        self._webhook, self._seed, self._most, self._share = Webhook(secret), seed, most, share
        self._tries: dict[str, int] = defaultdict(int)
        self._taken: list[Taken] = []
        self._unsigned = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="webhook receiver")

    @property
    def url(self) -> str:
        """Where events are sent."""
        return f"http://127.0.0.1:{self._server.server_port}/hook"

    @property
    def taken(self) -> list[Taken]:
        """The events that were taken so far, repeated ones included."""
        with self._lock:
            return list(self._taken)

    @property
    def tries(self) -> int:
        """How many requests have come."""
        with self._lock:
            return sum(self._tries.values())

    @property
    def unsigned(self) -> int:
        """How many of them had no valid signature."""
        return self._unsigned

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def receive(self, body: bytes, headers: Mapping[str, str]) -> Fault | None:
        """Take an event, or return the fault that its sender sees."""
        try:
            event = self._webhook.verify(body, dict(headers))
        except (WebhookVerificationError, json.JSONDecodeError):
            self._unsigned += 1
            return "500"
        message = headers["webhook-id"]
        with self._lock:
            self._tries[message] += 1
            fault = self._fault(message, self._tries[message])
            if fault in (None, "answer lost"):
                self._taken.append(Taken(message, event["type"], event["data"]["id"]))
        return fault

    def _fault(self, message: str, number: int) -> Fault | None:
        chance = hashlib.sha256(f"{self._seed} {message} {number}".encode()).digest()
        if number > self._most or chance[0] >= 256 * self._share:
            return None
        return _FAULTS[chance[1] % len(_FAULTS)]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                fault = receiver.receive(body, {name.lower(): value for name, value in self.headers.items()})
                if fault not in ("no answer", "answer lost"):
                    self.send_response(int(fault or 204))
                    self.end_headers()

            def log_message(self, *_: object) -> None: ...

        return Handler
