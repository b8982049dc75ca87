"""The engine as a backend: any number of threads submit an image and wait, and one thread runs the engine."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from emx_shared.contracts.report import Report
from emx_worker.engine.engine import Engine
from emx_worker.engine.sequence import ReportSequence
from emx_worker.image_task import ENGINE_FAULT, ImageFault, ImageTask

log = logging.getLogger("emx.engine")

LINGER_SECONDS = 0.005
"""How long an idle engine waits for a fuller batch. Threads that were woken together submit together, and a
prefill costs far more than this wait."""


class EngineClosed(RuntimeError):
    """The engine takes no more images, since the worker is shutting down."""


@dataclass(frozen=True, eq=False)
class _PendingRead:
    sequence: ReportSequence
    answer: "Future[Report | ImageFault]" = field(default_factory=Future)


class EngineThread:
    """A backend that owns the thread which loads and runs the engine, and so all of torch's work.

    If a second thread had computed in parallel, even if only while it loaded the weights, it would keep OpenMP's
    threads. With more of these in a process than there are cores, OpenMP puts all of them to sleep between any two
    operations: the demo model then reads a quarter fewer images.
    """

    def __init__(self, load: Callable[[], Engine]) -> None:
        """Start the thread, and wait until it has loaded the engine.

        Args:
            load: returns the engine; what it raises is raised here.
        """
        self._submitted: list[_PendingRead] = []
        self._in_hand: dict[ReportSequence, _PendingRead] = {}
        self._changed = threading.Condition()
        self._closed = False
        loaded: Future[Engine] = Future()
        self._thread = threading.Thread(target=self._run, args=(load, loaded), name="engine", daemon=True)
        self._thread.start()
        self._engine = loaded.result()

    @property
    def progress(self) -> int:
        """Count the engine's steps so far."""
        return self._engine.progress

    def read(self, task: ImageTask) -> Report | ImageFault:
        """Read an image, and wait for its report. Raises EngineClosed after ``close``."""
        pending = _PendingRead(self._engine.new_sequence(task))
        with self._changed:
            if self._closed:
                raise EngineClosed("the worker is shutting down")
            self._submitted.append(pending)
            self._changed.notify()
        return pending.answer.result()

    def partial_texts(self) -> dict[str, str]:
        """Return the text so far of each image that is being read, by the image's id."""
        return {sequence.task.id: sequence.constraint.text for sequence in list(self._in_hand)}

    def close(self) -> None:
        """Read the images that were submitted, then end the thread, and wait for its end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self, load: Callable[[], Engine], loaded: "Future[Engine]") -> None:
        try:
            engine = load()
        except BaseException as error:
            loaded.set_exception(error)
            return
        loaded.set_result(engine)
        while self._take_in(engine):
            try:
                ended = engine.step()
            except Exception:
                log.exception("the engine failed between two forward passes")
                ended = engine.fail_all(ENGINE_FAULT)
            for sequence in ended:
                self._answer(self._in_hand.pop(sequence))

    def _take_in(self, engine: Engine) -> bool:
        """Give the engine the submitted images, waiting while it is idle. False once closed and done."""
        with self._changed:
            if not self._in_hand:
                self._changed.wait_for(lambda: self._submitted or self._closed)
                self._changed.wait_for(
                    lambda: self._closed or len(self._submitted) >= engine.slots, timeout=LINGER_SECONDS
                )
            for pending in self._submitted:
                self._in_hand[pending.sequence] = pending
                engine.add(pending.sequence)
            self._submitted.clear()
            return bool(self._in_hand)

    def _answer(self, pending: _PendingRead) -> None:
        sequence = pending.sequence
        pending.answer.set_result(self._engine.build_answer(sequence.task, sequence.result()))
