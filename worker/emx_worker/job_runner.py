"""From a message to an outcome: start, decode, read, finish."""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import torch
from redis.exceptions import RedisError

from emx_shared.contracts.report import Report
from emx_shared.contracts.states import JobState
from emx_shared.imaging import BadImage, decode
from emx_shared.ledger import Ledger, Started, finish, hand_back, start
from emx_shared.ledger.opening import open_ledger
from emx_shared.ledger.records import Failure, Outcome
from emx_shared.prometheus_metrics import ACCELERATOR_MEMORY, STAGE_SECONDS, STUDIES_IN_HAND, TOKENS
from emx_shared.settings import Settings
from emx_shared.store import NoSuchObject, StoreError
from emx_worker.backends.engine_thread import EngineThread
from emx_worker.backends.openai_server import ModelServer
from emx_worker.engine.engine import Engine
from emx_worker.heartbeat import Heartbeat
from emx_worker.model.loading import load_model
from emx_worker.report_builder import Study, StudyFault
from emx_worker.text_publisher import Teller

log = logging.getLogger("emx.worker")
T = TypeVar("T")

_PATIENCE = 600.0
"""Seconds for which a job in hand waits while the store or Redis is away."""


class Reader(Protocol):
    """Whatever runs the model: an engine in this process (``EngineThread``), or a ``ModelServer``."""

    @property
    def progress(self) -> int:
        """Grows with the work that is done; it stands still when idle, and when a forward hangs."""

    def written(self) -> dict[str, str]:
        """What has been written so far of each study that is being read, by its id."""

    def read(self, study: Study, alone: bool = False) -> Report | StudyFault:
        """Wait for a study's report. ``alone``: without batch-mates."""

    def close(self) -> None:
        """Take no more studies."""


@dataclass
class Desk:
    """The ledger on one side, the model on the other."""

    ledger: Ledger
    engine: Reader
    heartbeat: Heartbeat
    closing: bool = False
    teller: Teller = field(init=False)

    def __post_init__(self) -> None:
        self.teller = Teller(self.ledger.redis, self.engine.written)

    @classmethod
    def open(cls, settings: Settings) -> "Desk":
        ledger = open_ledger(settings, "worker")
        engine = ModelServer.open(settings) if settings.server else EngineThread(lambda: _engine(settings))
        name = uuid.uuid4().hex[:8]
        heartbeat = Heartbeat(ledger.redis, settings.lease, settings.hang, lambda: engine.progress, name)
        return cls(ledger, engine, heartbeat)

    def close(self) -> None:
        """Take no more jobs in hand; those in hand are read."""
        self.closing = True

    def leave(self) -> None:
        """End the threads, once no job is in hand."""
        self.teller.close()
        self.engine.close()
        self.heartbeat.close()

    def read(self, job: str, queue: str) -> None:
        """Take in hand the job of this queue whose turn it is, or else this one, and bring it to its outcome.

        Whoever else has it, or had it, wins quietly.
        """
        started = self._take(job, queue)
        if started is None:
            return
        job = started.job.id
        if self.closing:
            hand_back(self.ledger, started)
            return
        cancelled = self.heartbeat.hold(job, started.token)
        STUDIES_IN_HAND.inc()
        try:
            outcome = self._outcome(started, cancelled)
            if outcome:
                self._patiently(lambda: finish(self.ledger, job, outcome))
                _observe(started, outcome)
        finally:
            STUDIES_IN_HAND.dec()
            self.heartbeat.let_go(started.token)
            self.ledger.redis.leases.release(job, started.token)

    def _take(self, job: str, queue: str) -> Started | None:
        while (turn := self.ledger.redis.turns.take(queue)) is not None:
            if started := self._patiently(partial(self._start, turn)):
                return started
        return self._patiently(partial(self._start, job))

    def _start(self, job: str) -> Started | None:
        token = uuid.uuid4().hex
        try:
            return start(self.ledger, job, token)
        except Exception:
            self.ledger.redis.leases.release(job, token)  # else trying again would find the job taken
            raise

    def _outcome(self, started: Started, cancelled: threading.Event) -> Outcome | None:
        """None when the job was cancelled, or its lease lost: its outcome is somebody else's affair."""
        began = time.perf_counter()
        settings = self.ledger.settings
        try:
            data = self._patiently(lambda: self.ledger.input(started.job))
            decoded = decode(data, settings.max_upload_bytes, settings.max_pixels)
        except BadImage as error:
            return self._failure(started, "bad-image", str(error))
        except NoSuchObject:
            return self._failure(started, "no-input", "The image is no longer in the store.")
        study = Study(
            id=started.job.id,
            image=decoded.image,
            facts=decoded.facts,
            decode_seconds=time.perf_counter() - began,
            indication=started.job.indication,
            cancelled=cancelled,
        )
        answer = self.engine.read(study, alone=started.alone)
        if isinstance(answer, Report):
            return Outcome(
                state=JobState.SUCCEEDED,
                report=answer,
                started_at=started.started_at,
                attempts=started.attempts,
                finished_at=self.ledger.store.now(),
            )
        if isinstance(answer, StudyFault) and answer.code == "cancelled":
            return None
        return self._failure(started, answer.code, answer.message)

    def _failure(self, started: Started, code: str, message: str) -> Outcome:
        return Outcome(
            state=JobState.FAILED,
            failure=Failure(code=code, message=message),
            started_at=started.started_at,
            attempts=started.attempts,
            finished_at=self.ledger.store.now(),
        )

    def _patiently(self, operation: Callable[[], T]) -> T:
        """A report that was paid for is worth some waiting, and a message not taken now would be missed."""
        give_up, pause = time.monotonic() + _PATIENCE, 0.2
        while True:
            try:
                return operation()
            except (StoreError, RedisError) as error:
                if time.monotonic() > give_up:
                    raise
                log.warning("the store or Redis is away (%s); trying again in %.1f s", type(error).__name__, pause)
                time.sleep(pause)
                pause = min(pause * 2, 10)


def _engine(settings: Settings) -> Engine:
    began = time.perf_counter()
    loaded = load_model(
        settings.model, adapter=settings.adapter, device=settings.device, quantisation=settings.quantisation
    )
    engine = Engine(loaded, max_batch=settings.slots)
    log.info("model %s ready in %.1f s", loaded.provenance.name, time.perf_counter() - began)
    return engine


def _observe(started: Started, outcome: Outcome) -> None:
    queued = (started.started_at - started.job.submitted_at).total_seconds()
    total = (outcome.finished_at - started.job.submitted_at).total_seconds()
    STAGE_SECONDS.labels("queued").observe(max(queued, 0))
    STAGE_SECONDS.labels("total").observe(max(total, 0))
    if outcome.report:
        timings = outcome.report.timings
        STAGE_SECONDS.labels("decode").observe(timings.decode)
        STAGE_SECONDS.labels("prefill").observe(timings.prefill)
        STAGE_SECONDS.labels("generate").observe(timings.generate)
        TOKENS.inc(outcome.report.tokens.generated)
    _observe_accelerator()


def _observe_accelerator() -> None:
    for number in range(torch.cuda.device_count()):
        device = f"cuda:{number}"
        ACCELERATOR_MEMORY.labels(device, "allocated").set(torch.cuda.memory_allocated(number))
        ACCELERATOR_MEMORY.labels(device, "reserved").set(torch.cuda.memory_reserved(number))
        ACCELERATOR_MEMORY.labels(device, "peak").set(torch.cuda.max_memory_allocated(number))
        ACCELERATOR_MEMORY.labels(device, "total").set(torch.cuda.mem_get_info(number)[1])
