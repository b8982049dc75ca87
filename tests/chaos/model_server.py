"""A small OpenAI-compatible server, so that workers start and read quickly: every image gets the same report."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

MODEL = "chaos"

_REPORT = "FINDINGS: The lungs are clear.\nLOCATIONS: []\nIMPRESSION: No acute finding."
_READING_SECONDS = 0.1


class ModelServer:
    """Serves while it is entered."""

    def __init__(self) -> None:
        self._holders = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="model server")

    @property
    def url(self) -> str:
        """Where workers find it."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._holders = 0
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def hold(self) -> None:
        """Let every image wait until ``release``. Several may hold; the last one lets them go."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Take one ``hold`` back."""
        with self._lock:
            self._holders -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("application/json", json.dumps({"data": [{"id": MODEL}]}))

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                time.sleep(_READING_SECONDS)
                while server._holders > 0:
                    time.sleep(0.05)
                choice = {"delta": {"content": _REPORT}, "finish_reason": "stop"}
                self._answer("text/event-stream", f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n")

            def _answer(self, kind: str, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(text.encode())

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:  # the worker was killed
                    return

            def log_message(self, *_: object) -> None: ...

        return Handler
