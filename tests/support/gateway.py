"""A running gateway, as its clients and its workers see it."""

import io
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
from PIL import Image

from emx_shared.contracts.findings import BY_LABEL
from emx_shared.contracts.report import Box, ImageFacts, Location, ModelProvenance, Report, Timings, TokenCounts
from emx_shared.contracts.states import JobState
from emx_shared.ledger import Ledger, advance_batch, finish, start
from emx_shared.ledger.opening import open_ledger
from emx_shared.ledger.records import Failure, Outcome
from emx_shared.settings import Settings
from explainmyxray.supervisor import free_port


@dataclass
class RunningGateway:
    """A gateway as its clients see it, and its ledger as a worker sees it."""

    client: httpx.Client
    ledger: Ledger

    @property
    def url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    def submit(self, data: bytes, **fields: str) -> httpx.Response:
        return self.client.post("/v1/jobs", files={"file": ("x.png", data)}, data=fields)

    @staticmethod
    def png(width: int = 80, height: int = 60) -> bytes:
        buffer = io.BytesIO()
        Image.effect_noise((width, height), 60).save(buffer, "PNG")
        return buffer.getvalue()

    def written_by_a_worker(self, job: str, *texts: str) -> None:
        """Write the text piece by piece once a client watches the job, and then the report."""
        live_text, length = self.ledger.redis.live_text, 0
        while not live_text.watched_among([job]):
            time.sleep(0.02)
        for text in texts:
            live_text.append_text(job, text, length)
            length += len(text)
        time.sleep(0.3)
        self.read_by_a_worker(job)

    def read_by_a_worker(self, job: str, **parts: Any) -> Report:
        """End a job with a report; ``parts`` replace some of it."""
        finding = BY_LABEL["pleural effusion"]
        report = Report(
            findings="There is fluid.",
            impression="Effusion.",
            locations=(
                Location(
                    label=finding.label,
                    code=finding.code,
                    snomed_ct=finding.snomed_ct,
                    radlex=finding.radlex,
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
        ).model_copy(update=parts)
        self._end(job, state=JobState.SUCCEEDED, report=report)
        return report

    def fail_by_a_worker(self, job: str) -> Failure:
        """End a job without a report."""
        failure = Failure(code="unreadable-image", message="The image could not be read. Send it again.")
        self._end(job, state=JobState.FAILED, failure=failure)
        return failure

    def _end(self, job: str, **how: Any) -> None:
        token = uuid.uuid4().hex
        assert start(self.ledger, job, token)
        now = self.ledger.store.now()
        finish(self.ledger, job, Outcome(started_at=now, finished_at=now, **how))
        self.ledger.redis.leases.release(job, token)

    @contextmanager
    def at_work(self, pause: float = 0.0) -> Iterator[None]:
        """Do what a courier and a worker do, with a pause before each report, until the block is left."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(0.05):
                for entry in list(self.ledger.store.list("open/")):
                    if batch := self.ledger.batch(entry.key.removeprefix("open/")):
                        advance_batch(self.ledger, batch.id)
                for entry in list(self.ledger.store.list("open/")):
                    job = self.ledger.job(entry.key.removeprefix("open/"))
                    if job and self.ledger.outcome(job.id) is None and not over.wait(pause):
                        self.read_by_a_worker(job.id)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @staticmethod
    def problem(answer: httpx.Response, status: int, kind: str) -> None:
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == f"urn:explainmyxray:problem:{kind}"
        assert answer.json()["status"] == status


class StartGateway(Protocol):
    """Starts a gateway; its settings are given as environment variables."""

    def __call__(self, redis_url: str, store: Path, **settings: str) -> AbstractContextManager[RunningGateway]: ...


@contextmanager
def running_gateway(redis_url: str, store: Path, **settings: str) -> Iterator[RunningGateway]:
    port = free_port()
    own = {"EMX_STORE": f"file:{store}", "EMX_REDIS": redis_url, "EMX_PORT": str(port), **settings}
    process = subprocess.Popen([sys.executable, "-P", "-m", "emx_gateway"], env={**os.environ, **own})
    ledger = open_ledger(Settings(store=f"file:{store}", redis=redis_url), "test")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        for _ in range(100):
            try:
                client.get("/healthz")
                break
            except httpx.TransportError:
                time.sleep(0.2)
        yield RunningGateway(client, ledger)
    ledger.redis.close()
    process.terminate()
    assert process.wait(20) == 0 or process.returncode == -15
