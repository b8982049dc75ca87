"""Takes a job from its message to its outcome: start, decode, read, finish."""

import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from redis.exceptions import RedisError

from emx_shared.contracts.report import Report
from emx_shared.contracts.states import JobState
from emx_shared.imaging import BadImage
from emx_shared.imaging.decoder_pool import DecoderPool
from emx_shared.ledger import Ledger, Started, begin, finish, hand_back, take
from emx_shared.ledger.opening import open_ledger
from emx_shared.ledger.records import Failure, Outcome, UnreadableRecord
from emx_shared.messaging import STAT_QUEUE
from emx_shared.prometheus_metrics import ACCELERATOR_MEMORY, IMAGES_IN_HAND, STAGE_SECONDS, TOKENS
from emx_shared.settings import Settings
from emx_shared.store import NoSuchObject, StoreError
from emx_worker.backends.engine_thread import EngineThread
from emx_worker.backends.openai_server import OpenAIServerBackend
from emx_worker.backends.report_backend import ReportBackend
from emx_worker.company import Company
from emx_worker.engine.engine import Engine
from emx_worker.heartbeat import Heartbeat
from emx_worker.image_task import ImageTask
from emx_worker.model.loading import load_model
from emx_worker.text_publisher import TextPublisher

log = logging.getLogger("emx.worker")
T = TypeVar("T")

_LOOK_AGAIN = 0.01
"""Seconds after which the first of the jobs that wait for a slot lets a stat job pass."""

_RETRY_SECONDS = 600.0
"""How long a job in hand waits while the store or Redis is unavailable."""


@dataclass
class JobRunner:
    """Runs jobs of the ledger on a backend.

    A job in hand keeps its lease until its outcome is stored, and is given up quietly when another worker has it.

    Attributes:
        ledger: where jobs come from and outcomes go to.
        backend: runs the model.
        heartbeat: keeps the leases of the jobs in hand.
        draining: whether the worker is shutting down, and hands new jobs back.
        slots: jobs that may be in hand beside stat jobs.
        text_publisher: publishes reports while they are written.
        decoders: processes that decode images, as a codec may crash.
    """

    ledger: Ledger
    backend: ReportBackend
    heartbeat: Heartbeat
    draining: bool = False
    slots: int = 32
    text_publisher: TextPublisher = field(init=False)
    decoders: DecoderPool = field(init=False)
    _free_slots: threading.Semaphore = field(init=False)
    _first_in_line: threading.Lock = field(init=False)
    _company: Company = field(init=False, default_factory=Company)

    def __post_init__(self) -> None:
        self._free_slots, self._first_in_line = threading.Semaphore(self.slots), threading.Lock()
        self.decoders = DecoderPool(os.cpu_count() or 1, self.ledger.settings)
        self.text_publisher = TextPublisher(self.ledger.redis, self.backend.partial_texts)

    @classmethod
    def open(cls, settings: Settings) -> "JobRunner":
        """Open the ledger, and load the model or connect to its server.

        Raises:
            ModelError: if the model can't be loaded, or the server doesn't have it.
            StoreError: if the store is unavailable.
        """
        ledger = open_ledger(settings, "worker")
        backend = _open_backend(settings)
        name = uuid.uuid4().hex[:8]
        heartbeat = Heartbeat(ledger.redis, settings.lease, settings.hang, lambda: backend.progress, name)
        return cls(ledger, backend, heartbeat, slots=settings.slots)

    def drain(self) -> None:
        """Hand back every job that comes from now on. Jobs in hand are still read."""
        self.draining = True

    def close(self) -> None:
        """End the threads. No job may be in hand any more."""
        self.text_publisher.close()
        self.backend.close()
        self.heartbeat.close()
        self.decoders.close()

    def read(self, job: str, queue: str) -> None:
        """Run the job whose turn it is in a queue. While all slots are taken, stat jobs are run meanwhile.

        Args:
            job: id of the job to run if the queue's turns are unknown.
            queue: one of ``READ_QUEUES``.
        """
        if queue == STAT_QUEUE:
            self._read(job, queue)
            return
        while urgent := self._wait_for_slot():
            if started := self._start(urgent):
                self._run_or_hand_back(started)
        try:
            self._read(job, queue)
        finally:
            self._free_slots.release()

    def _wait_for_slot(self) -> str | None:
        """Take a slot, or else return the stat job whose turn it is: its message finds nothing to do then.

        A worker that shuts down gives everybody a slot, as it hands all jobs back.
        """
        with self._first_in_line:
            while not self._free_slots.acquire(timeout=_LOOK_AGAIN):
                if self.draining:
                    return None
                if urgent := self.ledger.redis.turns.take(STAT_QUEUE):
                    return urgent
        return None

    def _read(self, job: str, queue: str) -> None:
        if started := self._take(job, queue):
            self._run_or_hand_back(started)

    def _take(self, job: str, queue: str) -> Started | None:
        while (turn := self.ledger.redis.turns.take(queue)) is not None:
            if started := self._start(turn):
                return started
        return self._start(job)

    def _start(self, job: str) -> Started | None:
        """Take a job, however long the store or Redis is away: under one token, as a try may succeed unheard."""
        token = uuid.uuid4().hex
        try:
            return _retry_until_available(lambda: take(self.ledger, job, token))
        except UnreadableRecord as error:  # the queue's other jobs are read all the same
            log.error("job %s waits: %s", job, error)
            self.ledger.redis.leases.release(job, token)
            return None
        except Exception:
            self.ledger.redis.leases.release(job, token)
            raise

    def _run_or_hand_back(self, started: Started) -> None:
        """Run a job as soon as it may begin, unless this worker shuts down or the job is cancelled before."""
        cancelled = self.heartbeat.hold(started.job.id, started.token)
        try:
            with self._company.join(started.alone, lambda: self.draining or cancelled.is_set()) as may_begin:
                if may_begin:
                    self._run(started, cancelled)
                elif not cancelled.is_set():
                    hand_back(self.ledger, started)
        finally:
            self.heartbeat.release(started.token)
            self.ledger.redis.leases.release(started.job.id, started.token)

    def _run(self, started: Started, cancelled: threading.Event) -> None:
        IMAGES_IN_HAND.inc()
        try:
            _retry_until_available(lambda: begin(self.ledger, started))
            outcome = self._outcome(started, cancelled)
            if outcome:
                _retry_until_available(lambda: finish(self.ledger, started.job.id, outcome), math.inf)
                _observe(started, outcome)
        except (StoreError, RedisError):
            with suppress(StoreError, RedisError):
                hand_back(self.ledger, started)  # no worker died of this image
            raise
        finally:
            IMAGES_IN_HAND.dec()

    def _outcome(self, started: Started, cancelled: threading.Event) -> Outcome | None:
        """Read the job's image. None if the job was cancelled or its lease lost: others write its outcome then."""
        try:
            task = self._image_task(started, cancelled)
        except BadImage as error:
            return self._failure(started, "bad-image", str(error))
        except NoSuchObject:
            return self._failure(started, "no-input", "The image is no longer in the store.")
        answer = self.backend.read(task)
        if isinstance(answer, Report):
            return Outcome(
                state=JobState.SUCCEEDED,
                report=answer,
                started_at=started.started_at,
                attempts=started.attempts,
                finished_at=self.ledger.store.now(),
            )
        return None if answer.code == "cancelled" else self._failure(started, answer.code, answer.message)

    def _image_task(self, started: Started, cancelled: threading.Event) -> ImageTask:
        began = time.perf_counter()
        data = _retry_until_available(lambda: self.ledger.input(started.job))
        decoded = self.decoders.decode(data)
        return ImageTask(
            id=started.job.id,
            image=decoded.image,
            facts=decoded.facts,
            warnings=decoded.warnings,
            decode_seconds=time.perf_counter() - began,
            indication=started.job.indication,
            urgent=started.job.priority == STAT_QUEUE,
            cancelled=cancelled,
        )

    def _failure(self, started: Started, code: str, message: str) -> Outcome:
        return Outcome(
            state=JobState.FAILED,
            failure=Failure(code=code, message=message),
            started_at=started.started_at,
            attempts=started.attempts,
            finished_at=self.ledger.store.now(),
        )


def _retry_until_available(operation: Callable[[], T], seconds: float | None = None) -> T:
    """Repeat an operation while the store or Redis is unavailable, for ``_RETRY_SECONDS`` or so many at most.

    A finished report is worth any wait, and a message that isn't taken now would be missed.
    """
    give_up, pause = time.monotonic() + (_RETRY_SECONDS if seconds is None else seconds), 0.2
    while True:
        try:
            return operation()
        except (StoreError, RedisError) as error:
            if time.monotonic() > give_up:
                raise
            log.warning(
                "the store or Redis is unavailable (%s); trying again in %.1f s", type(error).__name__, pause
            )
            time.sleep(pause)
            pause = min(pause * 2, 10)


def _open_backend(settings: Settings) -> ReportBackend:
    if settings.server:
        return OpenAIServerBackend.open(settings)
    return EngineThread(lambda: _load_engine(settings))


def _load_engine(settings: Settings) -> Engine:
    began = time.perf_counter()
    loaded = load_model(
        settings.model, adapter=settings.adapter, device=settings.device, quantisation=settings.quantisation
    )
    engine = Engine(loaded, max_batch=settings.slots)
    log.info("model %s ready in %.1f s", loaded.provenance.name, time.perf_counter() - began)
    return engine


def _observe(started: Started, outcome: Outcome) -> None:
    """Note how long a job took, in the log together with the request that submitted it."""
    queued = (started.started_at - started.job.submitted_at).total_seconds()
    total = (outcome.finished_at - started.job.submitted_at).total_seconds()
    log.info("job %s of request %s: %s after %.2f s", started.job.id, started.job.request_id, outcome.state, total)
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
