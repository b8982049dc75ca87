"""A random checkpoint, as small as they come; a gateway, and a bad connection to it."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers.utils import logging

from emx_training.pretrain.demo_architecture import build_processor, random_model, save_checkpoint, tiny_config
from emx_worker.model.checkpoint import ModelSpec


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)  # models so small gain nothing from more
    logging.disable_progress_bar()
    folder, config = tmp_path_factory.mktemp("model") / "tiny", tiny_config()
    model, processor = random_model(0, config), build_processor(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ("language_model.layers" in name and "proj" in name) or "mm_input_projection" in name:
                weight.mul_(8)  # so that a report depends on the image
        for token in (".", "Ċ"):  # so that findings end, and locations follow
            model.get_input_embeddings().weight[processor.tokenizer.convert_tokens_to_ids(token)] *= 3
    save_checkpoint(model, processor, ModelSpec(name="tiny", revision="0", demo=True, max_new_tokens=120), folder)
    return folder


@pytest.fixture(scope="module")
def gateway(redis_url: str, tmp_path_factory: pytest.TempPathFactory, start_gateway: Any) -> Iterator[Any]:
    own = {"EMX_MAX_UPLOAD_BYTES": "1000000", "EMX_WEBHOOK_ALLOW_PRIVATE": "true"}
    with start_gateway(redis_url, tmp_path_factory.mktemp("store"), **own) as made:
        made.url = str(made.client.base_url).rstrip("/")
        yield made


@dataclass
class BadConnection:
    """A proxy to a gateway. ``faults`` come first, one for each request:

    a status with headers, "drop" before the request is passed on, "lose" the answer after it was, or a number of
    bytes after which the answer is cut off.
    """

    target: str
    faults: list[Any] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def answer(self, asked: BaseHTTPRequestHandler) -> None:
        body = asked.rfile.read(int(asked.headers.get("Content-Length", 0)))
        headers = {k.lower(): v for k, v in asked.headers.items()}
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

    def _pass_on(self, asked: BaseHTTPRequestHandler, body: bytes, headers: dict[str, str], fault: Any) -> None:
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


@pytest.fixture
def bad_connection(gateway: Any) -> Iterator[BadConnection]:
    made = BadConnection(gateway.url)

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
