"""Another engine: an OpenAI-compatible server, such as vLLM, that already runs the model somewhere."""

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
from emx_shared.grammar import MalformedReport, Notation, ReportText
from emx_shared.settings import Settings
from emx_worker.engine.prompt import with_indication
from emx_worker.model.box_decoding import DIALECTS, Box2dDialect, Dialect
from emx_worker.model.checkpoint import Manifest, ModelError, read_manifest
from emx_worker.report_builder import ENGINE_FAULT, GRAMMAR_FAULT, Reading, Study, StudyFault, report_of

log = logging.getLogger("emx.engine")

PATIENCE = 600.0
"""Seconds for which a study waits while the server is away or busy."""

LARGEST = 2048
"""Pixels of the longer side that are sent; models look at fewer."""

_CONNECT = 10.0
_AWAY = StudyFault("engine", "The model server could not be reached.")
_CANCELLED = StudyFault("cancelled", "The study was cancelled.")


class _Refused(Exception):
    """The server answered with a status that trying again won't change."""


@dataclass
class _Written:
    """What has arrived of an answer."""

    text: str = ""
    finish: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    first_at: float | None = None


class ModelServer:
    """Reads studies at a server, one request each; the server batches them. For any number of threads."""

    def __init__(
        self, url: str, model: str, manifest: Manifest, *, key: str | None, grammar: bool, hang: float
    ) -> None:
        """Looks whether the server is there and has the model. Raises ModelError.

        Parameters:
            url: up to and with ``/v1``.
            model: its name at the server.
            manifest: how the model is asked; one without a dialect has ``box_2d``, as published models do.
            key: sent as bearer token.
            grammar: whether the server takes vLLM's ``structured_outputs``.
            hang: seconds after which a silent server has failed on a study.
        """
        kinds = {kind.name: kind for kind in DIALECTS}
        name = manifest.dialect or Box2dDialect.name
        if name not in kinds:
            raise ModelError(f"Unknown dialect {name!r} in emx.json: it is {' or '.join(kinds)}.")
        self._dialect: type[Dialect] = kinds[name]
        self._model, self._manifest, self._grammar = model, manifest, grammar
        self._client = httpx.Client(
            base_url=url.rstrip("/"),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(hang, connect=_CONNECT),
        )
        self._takes_indication = manifest.takes_indication or not manifest.model_fields_set
        self._chunks = 0
        self._under_way: dict[str, _Written] = {}
        self._closed = threading.Event()
        self._provenance = ModelProvenance(
            name=manifest.name or model,
            revision=manifest.revision or "as served",
            quantisation="as served",
            engine="openai-server",
            dialect=name,
            demo=manifest.demo,
            untrained=not manifest.model_fields_set,
        )
        self._look(url)

    @classmethod
    def open(cls, settings: Settings) -> "ModelServer":
        """Raises ModelError."""
        assert settings.server is not None
        folders = [Path(place) for place in (settings.model, settings.adapter) if place and Path(place).is_dir()]
        return cls(
            settings.server,
            settings.model,
            read_manifest(*folders),
            key=settings.server_key,
            grammar=settings.server_grammar == "structured_outputs",
            hang=settings.hang,
        )

    @property
    def progress(self) -> int:
        """Pieces of text that have arrived so far."""
        return self._chunks

    def written(self) -> dict[str, str]:
        """What has arrived so far of each study under way, by its id."""
        return {study: written.text for study, written in list(self._under_way.items())}

    def close(self) -> None:
        """Give up waiting for a server that is away."""
        self._closed.set()

    def read(self, study: Study, alone: bool = False) -> Report | StudyFault:
        """Wait for a study's report. ``alone`` has no meaning at a server, which keeps studies apart itself."""
        began = time.perf_counter()
        notation = self._dialect.notation(*study.image.size)
        try:
            written = self._patiently(study, self._request(study, notation))
        except _Refused as error:
            log.error("the model server refused %s: %s", study.id, error)
            return ENGINE_FAULT
        finally:
            self._under_way.pop(study.id, None)
        if written is None:
            return _CANCELLED if study.cancelled.is_set() else _AWAY
        return self._report(study, notation, written, began)

    def _look(self, url: str) -> None:
        try:
            answer = self._client.get("/models")
            if answer.status_code in (401, 403):
                raise ModelError(f"The model server at {url} asks for a key: set EMX_SERVER_KEY.")
            names = [entry["id"] for entry in answer.json()["data"]] if answer.is_success else None
        except httpx.HTTPError as error:
            reason = f"can't be reached ({type(error).__name__}): start it, or correct EMX_SERVER"
            raise ModelError(f"The model server at {url} {reason}.") from None
        except (ValueError, KeyError, TypeError):
            reason = "is no OpenAI-compatible server: correct EMX_SERVER"
            raise ModelError(f"What answers at {url}/models {reason}.") from None
        if names is None:
            log.warning("the model server doesn't list its models (status %d)", answer.status_code)
        elif self._model not in names:
            reason = (
                f"has no model {self._model!r}, but {', '.join(names[:10]) or 'none'}: set EMX_MODEL to one of its"
            )
            raise ModelError(f"The model server at {url} {reason}.")

    def _request(self, study: Study, notation: Notation) -> dict[str, Any]:
        image = {"type": "image_url", "image_url": {"url": _data_url(self._dialect.view(study.image))}}
        question = {"type": "text", "text": self._question(study)}
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": [image, question]}],
            "max_tokens": self._manifest.max_new_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._grammar:
            # Location tokens may be special ones, which vLLM otherwise leaves out of the text.
            body |= {"structured_outputs": {"grammar": notation.lark_for_decoding}, "skip_special_tokens": False}
        return body

    def _question(self, study: Study) -> str:
        asked = self._manifest.prompt or self._dialect.question
        return with_indication(asked, study.indication) if self._takes_indication else asked

    def _patiently(self, study: Study, body: dict[str, Any]) -> _Written | None:
        """The answer, or None where the study was cancelled or the server stayed away. Raises _Refused."""
        give_up, pause = time.monotonic() + PATIENCE, 0.5
        while not study.cancelled.is_set() and not self._closed.is_set():
            try:
                return self._written(study, body)
            except (httpx.TransportError, httpx.HTTPStatusError, ValueError) as error:
                if isinstance(error, httpx.ReadTimeout) or time.monotonic() > give_up:
                    break  # a hung server isn't asked twice
                log.warning("the model server is away (%s); trying again in %.1f s", type(error).__name__, pause)
            if study.cancelled.wait(pause):
                break
            pause = min(pause * 2, 15)
        return None

    def _written(self, study: Study, body: dict[str, Any]) -> _Written | None:
        written = self._under_way[study.id] = _Written()
        with self._client.stream("POST", "/chat/completions", json=body) as answer:
            if answer.status_code == 429 or answer.status_code >= 500:
                answer.raise_for_status()
            if not answer.is_success:
                raise _Refused(f"HTTP status {answer.status_code}")
            for event in _events(answer):
                self._chunks += 1
                if study.cancelled.is_set():
                    return None  # leaving the stream makes the server stop
                _add(written, event)
        if written.finish is None:
            raise httpx.RemoteProtocolError("the stream broke off")
        return written

    def _report(self, study: Study, notation: Notation, written: _Written, began: float) -> Report | StudyFault:
        cut_short = written.finish == "length"
        text = written.text.strip()
        whole = notation.whole(text) if cut_short else None
        try:
            parsed, left_out = notation.parse_usable(text + (notation.shortest_ending(text) if cut_short else ""))
        except (MalformedReport, ValueError):
            return GRAMMAR_FAULT
        first_at = written.first_at or time.perf_counter()
        reading = Reading(
            text=text,
            parsed=ReportText(parsed.findings, parsed.locations[:whole], parsed.impression),
            cut_short=cut_short,
            prompt_tokens=written.usage.get("prompt_tokens", 0),
            tokens=(),
            prefill_seconds=first_at - began,
            generate_seconds=time.perf_counter() - first_at,
        )
        report = report_of(study, reading, self._provenance, self._takes_indication)
        warnings = [*report.warnings, *([_LEFT_OUT.format(left_out)] if left_out else [])]
        tokens = TokenCounts(prompt=reading.prompt_tokens, generated=written.usage.get("completion_tokens", 0))
        return report.model_copy(update={"warnings": tuple(warnings), "tokens": tokens})


_LEFT_OUT = "Boxes that end before they begin, or lie off the image, were left out: {}. Findings may be missing."


def _data_url(image: Image.Image) -> str:
    if max(image.size) > LARGEST:
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _events(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in answer.iter_lines():
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data != "[DONE]":
            yield json.loads(data)


def _add(written: _Written, event: dict[str, Any]) -> None:
    written.usage = event.get("usage") or written.usage
    for choice in event.get("choices", [])[:1]:
        piece = (choice.get("delta") or {}).get("content") or ""
        if piece and written.first_at is None:
            written.first_at = time.perf_counter()
        written.text += piece
        written.finish = choice.get("finish_reason") or written.finish
