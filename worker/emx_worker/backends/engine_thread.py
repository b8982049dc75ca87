"""Many threads, one model: each hands in a study and waits; one thread runs the engine."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from emx_shared.contracts.report import Report
from emx_worker.engine.engine import Engine
from emx_worker.engine.sequence import Sequence
from emx_worker.report_builder import ENGINE_FAULT, Study, StudyFault

log = logging.getLogger("emx.engine")

LINGER = 0.005
"""Seconds for which an idle engine waits for a fuller batch: threads that were woken together
arrive together, and a prefill costs far more than this."""


class EngineClosed(RuntimeError):
    """The engine takes no more studies."""


@dataclass(frozen=True, eq=False)
class _Ticket:
    sequence: Sequence
    answer: "Future[Report | StudyFault]" = field(default_factory=Future)


class EngineThread:
    """Owns the thread that loads and runs the engine, and so all of torch's work.

    A second thread that had worked in parallel, even if only while it loaded the weights, would keep OpenMP's
    threads, and with more of these in a process than there are cores, OpenMP puts all to sleep between any two
    operations: the demo model reads a quarter fewer studies then.
    """

    def __init__(self, load: Callable[[], Engine]) -> None:
        """Returns when ``load`` has. Raises what it raises."""
        self._handed_in: list[_Ticket] = []
        self._in_hand: dict[Sequence, _Ticket] = {}
        self._changed = threading.Condition()
        self._closed = False
        loaded: Future[Engine] = Future()
        self._thread = threading.Thread(target=self._run, args=(load, loaded), name="engine", daemon=True)
        self._thread.start()
        self._engine = loaded.result()

    @property
    def progress(self) -> int:
        """The engine's."""
        return self._engine.progress

    def read(self, study: Study, alone: bool = False) -> Report | StudyFault:
        """Wait for a study's report. ``alone``: without batch-mates. Raises EngineClosed after ``close``."""
        ticket = _Ticket(self._engine.sequence(study, alone))
        with self._changed:
            if self._closed:
                raise EngineClosed("the worker is shutting down")
            self._handed_in.append(ticket)
            self._changed.notify()
        return ticket.answer.result()

    def written(self) -> dict[str, str]:
        """What has been written so far of each study under way, by its id."""
        return {sequence.study.id: sequence.constraint.text for sequence in list(self._in_hand)}

    def close(self) -> None:
        """Read what has been handed in, then stop. Returns when the thread has ended."""
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
                log.exception("the engine failed between two forwards")
                ended = engine.give_up(ENGINE_FAULT)
            for sequence in ended:
                self._answer(self._in_hand.pop(sequence))

    def _take_in(self, engine: Engine) -> bool:
        """Give the engine what was handed in, waiting while it has nothing to do; False once closed and done."""
        with self._changed:
            if not self._in_hand:
                self._changed.wait_for(lambda: self._handed_in or self._closed)
                self._changed.wait_for(
                    lambda: self._closed or len(self._handed_in) >= engine.slots, timeout=LINGER
                )
            for ticket in self._handed_in:
                self._in_hand[ticket.sequence] = ticket
                engine.add(ticket.sequence)
            self._handed_in.clear()
            return bool(self._in_hand)

    def _answer(self, ticket: _Ticket) -> None:
        sequence = ticket.sequence
        ticket.answer.set_result(self._engine.answer(sequence.study, self._engine.outcome(sequence)))
