"""Endpoints that refuse each event once, and note when it comes again."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class RefusingOnce:
    """Some endpoints of this machine.

    Attributes:
        urls: of the endpoints.
        accepted: when each event came the second time, in seconds of Unix time, by its id.
    """

    def __init__(self, count: int) -> None:
        """Start the endpoints."""
        self.accepted: dict[str, float] = {}
        self._refused: set[str] = set()
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), self._handler()) for _ in range(count)]
        self.urls = [f"http://127.0.0.1:{server.server_address[1]}/" for server in self._servers]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop the endpoints."""
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(receiver._status(self.headers["webhook-id"]))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        return Handler

    def _status(self, event: str) -> int:
        if event in self._refused:
            self.accepted.setdefault(event, time.time())
            return 204
        self._refused.add(event)
        return 503
