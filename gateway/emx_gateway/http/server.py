"""The HTTP server: uvicorn's, with limits on what a client may send before anybody knows who it is."""

import asyncio
import contextlib
import json
import resource
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from emx_gateway.http.problems import MEDIA_TYPE, Problem, document

MOST_HEAD_BYTES = 64 * 2**10
"""Of a request's line and headers, or of a body's framing and trailers."""
MOST_FIELDS = 100
"""Headers and trailers of one request."""

_FRAMING_SHARE = 4
"""A chunked body may bring one byte of framing for so many of its own; real clients stay far below."""
_OTHER_FILES = 200
"""Files that the process needs beside connections."""
GRACE_SECONDS = 8
"""How long requests may take to end once the server stops: those that wait, and those still being received, are
answered before that."""


class _Refused(Exception):
    """Stops the parser."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection. Heads have to be short and to come in time; refusals are problem documents.

    Attributes:
        most_connections: beyond these, new ones are answered 503.
        head_seconds: within so many a request's head must have arrived.
    """

    most_connections: int
    head_seconds: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request's head, or refuse the connection."""
        super().connection_made(transport)
        self._head_timer: asyncio.TimerHandle | None = None
        self._refusal = Problem(400, "bad-http", "This is not a valid HTTP request.")
        self._began = True
        self._count_anew()
        if len(self.connections) > self.most_connections:
            self._refuse(Problem(503, "too-many-connections", "Too many connections are open. Try again later."))
        else:
            self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, and count what isn't body."""
        if self.transport.is_closing():
            return
        self._began = False
        super().data_received(data)
        if not self._began:  # else it is unknown how much of it belongs to this request
            self._received += len(data)
        if self._received - self._body > MOST_HEAD_BYTES + self._body // _FRAMING_SHARE:
            self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        """Begin to count and to time a request's head."""
        super().on_message_begin()
        self._began = True
        self._count_anew()
        self._start_head_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header or a trailer."""
        self._fields += 1
        self._field_bytes += len(name) + len(value)
        if self._fields > MOST_FIELDS or self._field_bytes + len(self.url) > MOST_HEAD_BYTES:
            self._refusal = self._too_large()
            raise _Refused
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop timing the head."""
        self._stop_head_timer()
        self._in_body = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count the body."""
        self._body += len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Close the connection in a while if its client still sends a body that nobody wants."""
        if self.cycle.more_body and not self.transport.is_closing():
            self.loop.call_later(self.head_seconds, self._end_unless_received, self.cycle)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what can't be parsed, or was refused while it was."""
        self._refuse(self._refusal)

    def _count_anew(self) -> None:
        self._received = self._body = self._fields = self._field_bytes = 0
        self._in_body = False

    def _start_head_timer(self) -> None:
        self._stop_head_timer()
        self._head_timer = self.loop.call_later(self.head_seconds, self._end_late_head)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_late_head(self) -> None:
        if self.headers is None:  # nothing was ever sent: there is nothing to answer
            self.transport.close()
        else:
            self._refuse(Problem(408, "too-slow", f"The request didn't arrive within {self.head_seconds:.0f} s."))

    def _end_unless_received(self, cycle: Any) -> None:
        if self.cycle is cycle and cycle.more_body and not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        self._stop_head_timer()
        if self._in_body and self.cycle.response_started:  # the request was answered before its body was complete
            self.transport.close()
            return
        body = json.dumps(document(problem)).encode()
        head = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\nContent-Type: {MEDIA_TYPE}\r\n"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        self.transport.close()

    @staticmethod
    def _too_large() -> Problem:
        detail = f"A request's headers may have {MOST_FIELDS} fields and {MOST_HEAD_BYTES} bytes in all."
        return Problem(431, "headers-too-large", detail)


class GatewayServer(uvicorn.Server):
    """A server that says when it begins to stop: whoever waits for something is answered then."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: no more connections, and ``GRACE_SECONDS`` for what is going on."""
        self._on_stop()
        await super().shutdown(sockets)


def protocol(most_connections: int, head_seconds: float) -> type[GuardedProtocol]:
    """Return the protocol with these limits, of connections as far as this process may open files."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most_connections + _OTHER_FILES
    if files < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS has a bound beside its limits
            files = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = {"most_connections": min(most_connections, files - _OTHER_FILES), "head_seconds": head_seconds}
    return type("LimitedProtocol", (GuardedProtocol,), limits)
