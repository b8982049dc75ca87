"""A model on an OpenAI-compatible server: transformers' own with the demo model, and a server that misbehaves."""

import json
import os
import re
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer
from PIL import Image

from emx_shared.contracts.report import UNTRAINED_WARNING, ImageFacts, Report
from emx_shared.grammar import BoxNotation, parse
from emx_shared.imaging import decode
from emx_shared.ledger import Ledger, NewJob, submit
from emx_training.pretrain.tokenizer import build_tokenizer
from emx_worker import job_runner
from emx_worker.backends import openai_server
from emx_worker.backends.openai_server import OpenAIServerBackend
from emx_worker.engine.engine import Engine
from emx_worker.image_task import ImageFault, ImageTask
from emx_worker.job_runner import JobRunner
from emx_worker.model.box_decoding import BOX_DECODINGS
from emx_worker.model.checkpoint import ModelError, ModelSpec, read_model_spec
from emx_worker.model.loading import load_model
from explainmyxray.local import DEMO_MODEL
from explainmyxray.supervisor import free_port

SAMPLE = DEMO_MODEL / "sample.png"
TEXT = "FINDINGS: A mass.\nLOCATIONS: mass left <loc0100><loc0200><loc0300><loc0400>\nIMPRESSION: A mass."


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Run transformers' server with the demo model, its adapter merged; yield its URL and the model's name."""
    folder = tmp_path_factory.mktemp("served") / "demo"
    loaded = load_model(DEMO_MODEL, quantisation="none")
    loaded.model.save_pretrained(folder)
    loaded.processor.save_pretrained(folder)
    spec = read_model_spec(DEMO_MODEL).model_copy(update={"adapter": None})
    (folder / "emx.json").write_text(spec.model_dump_json(exclude_none=True))
    port = free_port()
    command = [Path(sysconfig.get_path("scripts")) / "transformers", "serve", folder, "--device", "cpu"]
    with (folder.parent / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    give_up = time.monotonic() + 90
    while time.monotonic() < give_up:
        try:
            if httpx.get(f"{url}/health").is_success:
                break
        except httpx.TransportError:
            assert process.poll() is None, (folder.parent / "log").read_text()
            time.sleep(0.2)
    yield f"{url}/v1", folder
    process.terminate()
    process.wait(20)


def sample() -> ImageTask:
    decoded = decode(SAMPLE.read_bytes())
    return ImageTask(id="sample", image=decoded.image, facts=decoded.facts)


def test_a_real_server_gives_the_engines_report(served: tuple[str, Path]) -> None:
    url, model = served
    remote = OpenAIServerBackend(url, str(model), read_model_spec(model), key=None, grammar=False, hang=60)
    remote_report = remote.read(sample())
    (local_report,) = Engine(load_model(DEMO_MODEL, quantisation="none"), max_batch=1).read([sample()])
    assert isinstance(remote_report, Report) and isinstance(local_report, Report)
    assert (remote_report.findings, remote_report.impression) == (local_report.findings, local_report.impression)
    assert [(found.label, found.box) for found in remote_report.locations] == [
        (f.label, f.box) for f in local_report.locations
    ]
    assert remote_report.locations
    assert remote_report.tokens == local_report.tokens
    assert (remote_report.model.engine, remote_report.model.dialect, remote_report.model.demo) == (
        "openai-server",
        "loc",
        True,
    )
    assert remote.progress > 10


def test_a_worker_reads_its_jobs_on_a_server(
    ledger: Ledger, served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, model = served
    monkeypatch.setattr(job_runner, "open_ledger", lambda *_: ledger)
    changes = {"server": url, "model": str(model), "server_grammar": "none"}
    runner = JobRunner.open(ledger.settings.model_copy(update=changes))
    job = submit(ledger, NewJob(SAMPLE.read_bytes(), "image/png"))[0].id
    runner.read(job, "routine")
    runner.close()
    outcome = ledger.outcome(job)
    assert outcome and outcome.report and outcome.report.model.engine == "openai-server"


@pytest.mark.parametrize(
    "notation", [kind.notation() for kind in BOX_DECODINGS], ids=lambda notation: notation.name
)
def test_the_grammar_that_is_sent_holds_any_tokenizer_to_reports(notation: BoxNotation) -> None:
    """vLLM's guidance backend passes it to llguidance, as this test does."""
    tokenizer = from_tokenizer(build_tokenizer())
    matcher = LLMatcher(tokenizer, notation.lark_for_decoding)
    text = TEXT if notation.name == "loc" else TEXT.partition("LOC")[0] + "LOCATIONS: []\nIMPRESSION: A mass."
    assert not matcher.is_error()
    assert not re.search(r"~\d", notation.lark_for_decoding), "llguidance 1.7, as in vLLM, refuses Lark's ~0..15"
    assert matcher.consume_tokens(tokenizer.tokenize_str(text, parse_special=True))
    assert matcher.is_accepting()


class Stand:
    """A server on loopback that gives prepared answers to chat completions, and keeps the requests."""

    def __init__(self) -> None:
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = []
        self.bodies: list[dict[str, Any]] = []
        self.models: tuple[int, Any] = (200, {"data": [{"id": "m"}]})
        stand = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = stand.models
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def do_POST(self) -> None:
                stand.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                stand.answers.pop(0)(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def streamed(*pieces: str, finish: str | None = "stop") -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        for piece in pieces:
            handler.wfile.write(f"data: {json.dumps({'choices': [{'delta': {'content': piece}}]})}\n\n".encode())
        if finish:
            usage = {"prompt_tokens": 7, "completion_tokens": 5}
            event = {"choices": [{"delta": {}, "finish_reason": finish}], "usage": usage}
            handler.wfile.write(f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode())

    return answer


def status(code: int) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.end_headers()

    return answer


@pytest.fixture
def stand() -> Iterator[Stand]:
    made = Stand()
    yield made
    made.close()


def server(stand: Stand, spec: ModelSpec | None = None, hang: float = 5) -> OpenAIServerBackend:
    known = ModelSpec(dialect="loc", prompt="Report.", name="n", revision="r")
    return OpenAIServerBackend(stand.url, "m", spec or known, key="k", grammar=True, hang=hang)


def task(width: int = 200, height: int = 120) -> ImageTask:
    facts = ImageFacts(width=width, height=height, media_type="image/png", sha256="0" * 64)
    return ImageTask(id="s", image=Image.new("L", (width, height)), facts=facts)


def test_image_prompt_and_grammar_are_sent(stand: Stand) -> None:
    stand.answers = [streamed(TEXT[:30], TEXT[30:])]
    report = server(stand).read(task())
    assert isinstance(report, Report)
    assert (report.findings, len(report.locations), report.warnings) == ("A mass.", 1, ())
    assert (report.tokens.prompt, report.tokens.generated) == (7, 5)
    (body,) = stand.bodies
    image, question = body["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert question["text"] == "Report."
    assert (body["temperature"], body["max_tokens"]) == (0, 512)
    assert "IMPRESSION" in body["structured_outputs"]["grammar"]


def test_a_published_model_is_asked_for_json_on_a_square_and_the_report_says_so(stand: Stand) -> None:
    entry = '{"box_2d": %s, "label": "mass left"}'
    locations = f"[{entry % [300, 0, 400, 500]}, {entry % [0, 0, 90, 90]}]"
    stand.answers = [streamed(f"FINDINGS: A mass.\nLOCATIONS: {locations}\nIMPRESSION: A mass.\n")]
    report = server(stand, ModelSpec()).read(task(200, 100))
    assert isinstance(report, Report)
    assert UNTRAINED_WARNING in report.warnings
    (found,) = report.locations  # the other box is on the padding
    assert any("left out: 1" in warning for warning in report.warnings)
    # The square has 50 rows of padding above the image's 100.
    box = (found.box.xmin, found.box.ymin, found.box.xmax, found.box.ymax)
    assert box == pytest.approx((0, 10, 100, 30), abs=0.2)


def test_an_answer_that_was_cut_short_is_ended_and_says_so(stand: Stand) -> None:
    stand.answers = [streamed(TEXT[: TEXT.index("IMP") - 1] + "; mass", finish="length")]
    report = server(stand).read(task())
    assert isinstance(report, Report)
    assert [found.label for found in report.locations] == ["mass"]
    assert any("cut short" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("text", "finish"),
    [("I see a mass.", "stop"), ("I see a mass.", "length"), ("", "stop"), (TEXT[: TEXT.index("IMP")], "stop")],
)
def test_an_answer_that_is_no_report_fails_the_image(stand: Stand, text: str, finish: str) -> None:
    stand.answers = [streamed(text, finish=finish)]
    answer = server(stand).read(task())
    assert isinstance(answer, ImageFault) and answer.code == "grammar"


def test_a_busy_server_and_a_broken_stream_are_asked_again(stand: Stand) -> None:
    stand.answers = [status(503), streamed(TEXT[:20], finish=None), status(429), streamed(TEXT)]
    assert isinstance(server(stand).read(task()), Report)
    assert len(stand.bodies) == 4


def test_a_request_that_is_refused_fails_the_image_at_once(stand: Stand) -> None:
    stand.answers = [status(400)]
    answer = server(stand).read(task())
    assert isinstance(answer, ImageFault) and answer.code == "engine"
    assert len(stand.bodies) == 1


def error_in_stream(code: int) -> Callable[[BaseHTTPRequestHandler], None]:
    """As vLLM 0.32 answers: with status 200, whatever went wrong after it began to stream."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        error = {"message": "Grammar error: …", "type": "BadRequestError", "param": None, "code": code}
        handler.wfile.write(f"data: {json.dumps({'error': error})}\n\ndata: [DONE]\n\n".encode())

    return answer


def test_an_error_within_the_stream_is_one(stand: Stand) -> None:
    stand.answers = [error_in_stream(400)]
    answer = server(stand).read(task())
    assert isinstance(answer, ImageFault) and answer.code == "engine"
    assert len(stand.bodies) == 1, "asked once: the request stays wrong"
    stand.answers = [error_in_stream(500), error_in_stream(429), streamed(TEXT)]
    assert isinstance(server(stand).read(task()), Report)


def test_a_server_that_stays_unavailable_is_given_up(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_server, "RETRY_SECONDS", 0.2)
    stand.answers = [status(500)] * 9
    answer = server(stand).read(task())
    assert isinstance(answer, ImageFault) and "reached" in answer.message


def test_a_server_that_hangs_is_given_up(stand: Stand) -> None:
    stand.answers = [lambda _: time.sleep(2)]
    began = time.monotonic()
    answer = server(stand, hang=0.3).read(task())
    assert isinstance(answer, ImageFault) and answer.code == "engine"
    assert time.monotonic() - began < 2


def test_a_cancelled_image_closes_the_stream(stand: Stand) -> None:
    one, more = task(), threading.Event()

    def slowly(handler: BaseHTTPRequestHandler) -> None:
        streamed("FIND", finish=None)(handler)
        handler.wfile.flush()
        one.cancelled.set()
        streamed("INGS", finish=None)(handler)
        more.wait(5)

    stand.answers = [slowly]
    answer = server(stand).read(one)
    more.set()
    assert isinstance(answer, ImageFault) and answer.code == "cancelled"


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ((401, {}), "EMX_SERVER_KEY"),
        ((200, {"data": [{"id": "other"}]}), "other"),
        ((200, ["?"]), "no OpenAI-compatible server"),
    ],
)
def test_a_wrong_server_is_refused_at_start(stand: Stand, models: tuple[int, Any], said: str) -> None:
    stand.models = models
    with pytest.raises(ModelError, match=said):
        server(stand)


def test_an_unavailable_server_is_refused_at_start(stand: Stand) -> None:
    stand.close()
    with pytest.raises(ModelError, match="can't be reached"):
        server(stand)


def test_the_text_above_is_a_report() -> None:
    parse(TEXT)
