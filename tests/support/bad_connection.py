"""A proxy that breaks connections in every way that a client must survive."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

Fault = tuple[int, dict[str, str]] | str | int
"""See BadConnection."""


@dataclass
class BadConnection:
    """A proxy to a gateway. ``faults`` come first, one for each request:

    a status with headers, "drop" before the request is passed on, "lose" the answer after it was, or a number of
    bytes after which the answer is cut off.
    """

    target: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def answer(self, asked: BaseHTTPRequestHandler) -> None:
        body = asked.rfile.read(int(asked.headers.get("Content-Length", 0)))
        headers = {k.lower(): v for k, v in asked.headers.items()}
        headers["accept-encoding"] = "identity"  # else few bytes would be left to cut
        self.seen.append((asked.command, asked.path, headers))
        fault = self.faults.pop(0) if self.faults else None
        asked.close_connection = True
        if isinstance(fault, tuple):
            status, more = fault
            asked.send_response(status)
            for name, value in {**more, "Content-Length": "0"}.items():
                asked.send_header(name, value)
            asked.end_headers()
        elif fault != "drop":
            self._pass_on(asked, body, headers, fault)

    def _pass_on(
        self, asked: BaseHTTPRequestHandler, body: bytes, headers: dict[str, str], fault: Fault | None
    ) -> None:
        with httpx.stream(
            asked.command, self.target + asked.path, content=body, headers=headers, timeout=60
        ) as got:
            if fault == "lose":
                got.read()
                return
            asked.send_response(got.status_code)
            for name, value in got.headers.items():
                if name not in ("connection", "date", "server", "transfer-encoding"):
                    asked.send_header(name, value)
            if "transfer-encoding" in got.headers:
                asked.send_header("Transfer-Encoding", "chunked")
            asked.end_headers()
            left = fault if isinstance(fault, int) else None
            for piece in got.iter_raw():
                kept = piece if left is None else piece[:left]
                framed = b"%x\r\n%s\r\n" % (len(kept), kept) if "transfer-encoding" in got.headers else kept
                asked.wfile.write(framed)
                if left is not None and (left := left - len(kept)) <= 0:
                    return
            if "transfer-encoding" in got.headers:
                asked.wfile.write(b"0\r\n\r\n")


@contextmanager
def bad_connection_to(target: str) -> Iterator[BadConnection]:
    made = BadConnection(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            made.answer(self)

        do_POST = do_DELETE = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()
