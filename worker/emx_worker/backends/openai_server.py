"""A backend on another machine: an OpenAI-compatible server, such as vLLM, that already runs the model."""

import base64
import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from emx_shared.contracts.report import ModelProvenance, Report, TokenCounts
from emx_shared.grammar import BoxNotation, MalformedReport, ReportText
from emx_shared.settings import Settings
from emx_worker.engine.prompt import with_indication
from emx_worker.image_task import CANCELLED_FAULT, ENGINE_FAULT, GRAMMAR_FAULT, Generation, ImageFault, ImageTask
from emx_worker.model.box_decoding import BOX_DECODINGS, Box2dDecoding, BoxDecoding
from emx_worker.model.checkpoint import ModelError, ModelSpec, read_model_spec
from emx_worker.report_builder import build_report

log = logging.getLogger("emx.engine")

RETRY_SECONDS = 600.0
"""How long an image waits while the server is unavailable or busy."""

MAX_SIDE = 2048
"""Pixels of the longer side of an image that is sent; models look at fewer."""

LEFT_OUT_WARNING = "Invalid boxes, without an area on the image, were left out: {}. Findings may be missing."

_CONNECT_SECONDS = 10.0
_UNAVAILABLE = ImageFault("engine", "The model server could not be reached.")


class _RequestRefused(Exception):
    """The server answered with a status that trying again won't change."""


@dataclass
class _StreamedAnswer:
    """The part of an answer that has arrived."""

    text: str = ""
    finish: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    first_at: float | None = None


class OpenAIServerBackend:
    """Reads each image with one request to the server, which batches the requests. For any number of threads."""

    def __init__(
        self, url: str, model: str, spec: ModelSpec, *, key: str | None, grammar: bool, hang: float
    ) -> None:
        """Check that the server is available and has the model.

        Args:
            url: of the server, up to and including ``/v1``.
            model: its name on the server.
            spec: how the model is asked. The default dialect is ``box_2d``, as published models write it.
            key: sent as bearer token; None to send none.
            grammar: whether the server supports vLLM's ``structured_outputs``.
            hang: seconds of silence after which the server has failed on an image.

        Raises:
            ModelError: if the server is unavailable or doesn't have the model, or the dialect is unknown.
        """
        kinds = {kind.name: kind for kind in BOX_DECODINGS}
        name = spec.dialect or Box2dDecoding.name
        if name not in kinds:
            raise ModelError(f"Unknown dialect {name!r} in emx.json: use {' or '.join(kinds)}.")
        self._box_decoding: type[BoxDecoding] = kinds[name]
        self._model, self._spec, self._grammar = model, spec, grammar
        self._client = httpx.Client(
            base_url=url.rstrip("/"),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(hang, connect=_CONNECT_SECONDS),
        )
        self._takes_indication = spec.takes_indication or not spec.model_fields_set
        self._chunks = 0
        self._in_hand: dict[str, _StreamedAnswer] = {}
        self._closed = threading.Event()
        self._provenance = ModelProvenance(
            name=spec.name or model,
            revision=spec.revision or "as served",
            quantisation="as served",
            engine="openai-server",
            dialect=name,
            demo=spec.demo,
            untrained=not spec.model_fields_set,
        )
        self._require_model(url)

    @classmethod
    def open(cls, settings: Settings) -> "OpenAIServerBackend":
        """Connect to the server that the settings name. Raises ModelError."""
        assert settings.server is not None
        folders = [Path(place) for place in (settings.model, settings.adapter) if place and Path(place).is_dir()]
        return cls(
            settings.server,
            settings.model,
            read_model_spec(*folders),
            key=settings.server_key,
            grammar=settings.server_grammar == "structured_outputs",
            hang=settings.hang,
        )

    @property
    def progress(self) -> int:
        """Count the pieces of text that have arrived so far."""
        return self._chunks

    def partial_texts(self) -> dict[str, str]:
        """Return the text so far of each image that is being read, by the image's id."""
        return {task: answer.text for task, answer in list(self._in_hand.items())}

    def close(self) -> None:
        """Stop waiting for a server that is unavailable."""
        self._closed.set()

    def read(self, task: ImageTask) -> Report | ImageFault:
        """Read an image, and wait for its report."""
        began = time.perf_counter()
        notation = self._box_decoding.notation(*task.image.size)
        try:
            answer = self._retry_until_available(task, self._request(task, notation))
        except _RequestRefused as error:
            log.error("the model server refused %s: %s", task.id, error)
            return ENGINE_FAULT
        finally:
            self._in_hand.pop(task.id, None)
        if answer is None:
            return CANCELLED_FAULT if task.cancelled.is_set() else _UNAVAILABLE
        return self._report(task, notation, answer, began)

    def _require_model(self, url: str) -> None:
        try:
            answer = self._client.get("/models")
            if answer.status_code in (401, 403):
                raise ModelError(f"The model server at {url} requires a key: set EMX_SERVER_KEY.")
            names = [entry["id"] for entry in answer.json()["data"]] if answer.is_success else None
        except httpx.HTTPError as error:
            reason = f"can't be reached ({type(error).__name__}): start it, or correct EMX_SERVER"
            raise ModelError(f"The model server at {url} {reason}.") from None
        except (ValueError, KeyError, TypeError):
            raise ModelError(f"{url} is no OpenAI-compatible server: correct EMX_SERVER.") from None
        if names is None:
            log.warning("the model server doesn't list its models (status %d)", answer.status_code)
        elif self._model not in names:
            known = f"only {', '.join(names[:10])}" if names else "no model at all"
            raise ModelError(
                f"The model server at {url} doesn't have the model {self._model!r}, {known}: set EMX_MODEL to a "
                "model that it has."
            )

    def _request(self, task: ImageTask, notation: BoxNotation) -> dict[str, Any]:
        image = {"type": "image_url", "image_url": {"url": _data_url(self._box_decoding.view(task.image))}}
        question = {"type": "text", "text": self._question(task)}
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": [image, question]}],
            "max_tokens": self._spec.max_new_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._grammar:
            # Location tokens may be special tokens, which vLLM otherwise leaves out of the text.
            body |= {"structured_outputs": {"grammar": notation.lark_for_decoding}, "skip_special_tokens": False}
        return body

    def _question(self, task: ImageTask) -> str:
        asked = self._spec.prompt or self._box_decoding.question
        return with_indication(asked, task.indication) if self._takes_indication else asked

    def _retry_until_available(self, task: ImageTask, body: dict[str, Any]) -> _StreamedAnswer | None:
        """Return the answer; None if the task was cancelled, or the server is hung or stays unavailable.

        Raises _RequestRefused.
        """
        give_up, pause = time.monotonic() + RETRY_SECONDS, 0.5
        while not task.cancelled.is_set() and not self._closed.is_set():
            try:
                return self._stream(task, body)
            except (httpx.TransportError, httpx.HTTPStatusError, ValueError) as error:
                if isinstance(error, httpx.ReadTimeout) or time.monotonic() > give_up:
                    break  # a hung server isn't asked twice
                log.warning(
                    "the model server is unavailable (%s); trying again in %.1f s", type(error).__name__, pause
                )
            if task.cancelled.wait(pause):
                break
            pause = min(pause * 2, 15)
        return None

    def _stream(self, task: ImageTask, body: dict[str, Any]) -> _StreamedAnswer | None:
        streamed = self._in_hand[task.id] = _StreamedAnswer()
        with self._client.stream("POST", "/chat/completions", json=body) as answer:
            if answer.status_code == 429 or answer.status_code >= 500:
                answer.raise_for_status()
            if not answer.is_success:
                raise _RequestRefused(f"HTTP status {answer.status_code}")
            for event in _events(answer):
                self._chunks += 1
                _raise_for_error(event)
                if task.cancelled.is_set():
                    return None  # closing the stream makes the server stop
                _add(streamed, event)
        if streamed.finish is None:
            raise httpx.RemoteProtocolError("the stream broke off")
        return streamed

    def _report(
        self, task: ImageTask, notation: BoxNotation, answer: _StreamedAnswer, began: float
    ) -> Report | ImageFault:
        cut_short = answer.finish == "length"
        text = answer.text.strip()
        complete = notation.complete_locations(text) if cut_short else None
        try:
            parsed, left_out = notation.parse_usable(text + (notation.shortest_ending(text) if cut_short else ""))
        except (MalformedReport, ValueError):
            return GRAMMAR_FAULT
        first_at = answer.first_at or time.perf_counter()
        generation = Generation(
            text=text,
            parsed=ReportText(parsed.findings, parsed.locations[:complete], parsed.impression),
            cut_short=cut_short,
            prompt_tokens=answer.usage.get("prompt_tokens", 0),
            tokens=(),
            prefill_seconds=first_at - began,
            generate_seconds=time.perf_counter() - first_at,
        )
        report = build_report(task, generation, self._provenance, self._takes_indication)
        warnings = [*report.warnings, *([LEFT_OUT_WARNING.format(left_out)] if left_out else [])]
        tokens = TokenCounts(prompt=generation.prompt_tokens, generated=answer.usage.get("completion_tokens", 0))
        return report.model_copy(update={"warnings": tuple(warnings), "tokens": tokens})


def _data_url(image: Image.Image) -> str:
    if max(image.size) > MAX_SIDE:
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _events(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in answer.iter_lines():
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data != "[DONE]":
            yield json.loads(data)


def _raise_for_error(event: dict[str, Any]) -> None:
    """Raise for an error within the stream, where vLLM reports some. Its text may quote the request: left out.

    Raises:
        _RequestRefused: trying again won't change it.
        httpx.RemoteProtocolError: it may.
    """
    if not (error := event.get("error")):
        return
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and 400 <= code < 500 and code != 429:
        raise _RequestRefused(f"error {code} in the stream; the server's own log may say why")
    raise httpx.RemoteProtocolError("the server reported an error")


def _add(streamed: _StreamedAnswer, event: dict[str, Any]) -> None:
    streamed.usage = event.get("usage") or streamed.usage
    for choice in event.get("choices", [])[:1]:
        piece = (choice.get("delta") or {}).get("content") or ""
        if piece and streamed.first_at is None:
            streamed.first_at = time.perf_counter()
        streamed.text += piece
        streamed.finish = choice.get("finish_reason") or streamed.finish
