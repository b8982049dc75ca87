"""Many threads, one model: studies that wait at the same time are read together."""

import logging
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from shared.report import Report
from worker.engine.engine import Engine
from worker.study import Study, StudyFault

log = logging.getLogger("emx.engine")

LINGER = 0.005
"""Seconds for which a free engine waits for a fuller batch: threads that were woken together
arrive together, and a prefill costs far more than this."""


class BatcherClosed(RuntimeError):
    """The batcher takes no more studies."""


@dataclass(frozen=True, eq=False)
class _Ticket:
    study: Study
    alone: bool
    answer: "Future[Report | StudyFault]" = field(default_factory=Future)


class Batcher:
    """Owns the thread that runs the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: deque[_Ticket] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def read(self, study: Study, alone: bool = False) -> Report | StudyFault:
        """Wait for a study's report. ``alone``: without batch-mates. Raises BatcherClosed after ``close``.

        A batch that fails as a whole is read again study by study; one that fails alone too has a fault.
        """
        ticket = _Ticket(study, alone)
        with self._changed:
            if self._closed:
                raise BatcherClosed("the worker is shutting down")
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket.answer.result()

    def close(self) -> None:
        """Read what has been handed in, then stop. Returns when the thread has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            self._answer(batch)

    def _next(self) -> list[_Ticket]:
        """The studies of the next batch; none once closed and done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._changed.wait_for(
                lambda: self._closed or len(self._waiting) >= self._engine.max_batch, timeout=LINGER
            )
            batch = [self._waiting.popleft()] if self._waiting else []
            while self._waiting and len(batch) < self._engine.max_batch:
                if batch[0].alone or self._waiting[0].alone:
                    break
                batch.append(self._waiting.popleft())
            return batch

    def _answer(self, batch: list[_Ticket]) -> None:
        try:
            answers = self._engine.read([ticket.study for ticket in batch])
        except Exception:
            log.exception("a batch of %d failed", len(batch))
            if len(batch) > 1:  # it may be too much together, or the fault of one
                for ticket in batch:
                    self._answer([ticket])
                return
            answers = [StudyFault("engine", "The engine failed on this study.")]
        for ticket, answer in zip(batch, answers, strict=True):
            ticket.answer.set_result(answer)
