"""A gateway over real HTTP, on a real Redis and a real store; a worker's outcomes are written by the tests."""

import io
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from explainmyxray.up import free_port
from shared.findings import BY_LABEL, FINDINGS
from shared.ledger import Ledger, finish, start
from shared.ledger.records import Outcome
from shared.opening import open_ledger
from shared.report import Box, ImageFacts, Location, ModelProvenance, Report, Timings, TokenCounts
from shared.settings import Settings


@dataclass
class Running:
    """A gateway as its clients see it, and its ledger as a worker sees it."""

    client: httpx.Client
    ledger: Ledger

    def submit(self, data: bytes, **fields: str) -> httpx.Response:
        return self.client.post("/v1/jobs", files={"file": ("x.png", data)}, data=fields)

    @staticmethod
    def png(width: int = 80, height: int = 60) -> bytes:
        buffer = io.BytesIO()
        Image.effect_noise((width, height), 60).save(buffer, "PNG")
        return buffer.getvalue()

    def read_by_a_worker(self, job: str) -> Report:
        finding = BY_LABEL["pleural effusion"]
        report = Report(
            findings="There is fluid.",
            impression="Effusion.",
            locations=(
                Location(
                    label=finding.label,
                    code=finding.code,
                    snomed_ct=finding.snomed_ct,
                    laterality="left",
                    box=Box(xmin=40, ymin=30, xmax=70, ymax=55),
                    box_normalised=Box(xmin=0.5, ymin=0.5, xmax=0.875, ymax=55 / 60),
                    colour=finding.colour,
                    probability=0.816,
                ),
            ),
            image=ImageFacts(width=80, height=60, media_type="image/png", sha256="0" * 64),
            model=ModelProvenance(
                name="test", revision="0", quantisation="none", engine="none", dialect="loc", demo=True
            ),
            timings=Timings(),
            tokens=TokenCounts(prompt=1, generated=1),
            created_at=self.ledger.store.now(),
        )
        token = uuid.uuid4().hex
        started = start(self.ledger, job, token)
        assert started
        now = self.ledger.store.now()
        finish(self.ledger, job, Outcome(kind="report", report=report, started_at=now, finished_at=now))
        self.ledger.index.release_lease(job, token)
        return report

    @staticmethod
    def problem(answer: httpx.Response, status: int, kind: str) -> None:
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == f"urn:explainmyxray:problem:{kind}"
        assert answer.json()["status"] == status


@contextmanager
def running(redis_url: str, store: Path, **settings: str) -> Iterator[Running]:
    port = free_port()
    own = {"EMX_STORE": f"file:{store}", "EMX_REDIS": redis_url, "EMX_PORT": str(port), **settings}
    process = subprocess.Popen([sys.executable, "-m", "gateway"], env={**os.environ, **own})
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
    for _ in range(100):
        try:
            client.get("/healthz")
            break
        except httpx.TransportError:
            time.sleep(0.2)
    yield Running(client, open_ledger(Settings(store=f"file:{store}", redis=redis_url), "test"))
    process.terminate()
    assert process.wait(20) == 0 or process.returncode == -15


@pytest.fixture(scope="session")
def start_gateway() -> Any:
    """Starts a gateway; its settings are given as environment variables."""
    return running


@pytest.fixture(scope="module")
def gateway(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    own = {"EMX_EXPLAIN_TIMEOUT": "2", "EMX_MAX_UPLOAD_BYTES": "1000000"}
    with running(redis_url, tmp_path_factory.mktemp("store"), **own) as made:
        yield made


def _report(
    size: tuple[int, int], boxes: Iterable[tuple[float, float, float, float]] = (), **parts: Any
) -> Report:
    """A report on an image of ``size`` with a finding for each box (pixels); ``parts`` replace the rest."""
    width, height = size
    places = tuple(
        Location(
            label=finding.label,
            code=finding.code,
            laterality="left" if finding.sided else None,
            box=Box(xmin=left, ymin=top, xmax=right, ymax=bottom),
            box_normalised=Box(xmin=left / width, ymin=top / height, xmax=right / width, ymax=bottom / height),
            colour=finding.colour,
            probability=0.82,
        )
        for finding, (left, top, right, bottom) in zip(FINDINGS, boxes, strict=False)
    )
    whole: dict[str, Any] = {
        "findings": "The heart is enlarged.",
        "impression": "Cardiomegaly.",
        "locations": places,
        "image": ImageFacts(width=width, height=height, media_type="image/png", sha256="0" * 64),
        "model": _model(),
        "timings": Timings(decode=0.01, prefill=0.5, generate=1.25),
        "tokens": TokenCounts(prompt=312, generated=140),
        "created_at": datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
    }
    return Report(**(whole | parts))


def _model(**parts: Any) -> ModelProvenance:
    whole = {"name": "some/model", "revision": "abc123", "quantisation": "int4", "engine": "emx", "dialect": "loc"}
    return ModelProvenance(**({"demo": False} | whole | parts))


@pytest.fixture(scope="session")
def make_report() -> Callable[..., Report]:
    return _report


@pytest.fixture(scope="session")
def make_model() -> Callable[..., ModelProvenance]:
    return _model
