"""Which studies go through the next forward."""

from collections import deque

from emx_worker.engine.sequence import Sequence
from emx_worker.engine.slots import Slots
from emx_worker.report_builder import StudyFault

TOGETHER, PATIENCE = 8, 4
"""Images are encoded faster by eights than one by one: while others are decoded, a study waits for more, or for
so many steps of theirs."""


class Scheduler:
    """First come, first served, as many at once as there are slots.

    Attributes:
        running: the studies under way; the n-th holds slot n.
        most: that may run together: the slots, or fewer after memory has run out.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._waiting: deque[Sequence] = deque()
        self._steps_waited = 0
        self.running: list[Sequence] = []
        self.most = slots.count

    @property
    def busy(self) -> bool:
        return bool(self.running or self._waiting)

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    def schedule(self) -> list[Sequence]:
        """Studies to begin, if some wait and there is room; else all that are under way."""
        fresh: list[Sequence] = []
        self._steps_waited += 1
        if not self.running or len(self._waiting) >= TOGETHER or self._steps_waited >= PATIENCE:
            while self._waiting and self._may_begin(self._waiting[0]):
                fresh.append(self._waiting.popleft())
                self.running.append(fresh[-1])
        if fresh or not self._waiting:
            self._steps_waited = 0
        return fresh or list(self.running)

    def _may_begin(self, sequence: Sequence) -> bool:
        if any(other.alone for other in self.running) or (sequence.alone and self.running):
            return False
        return len(self.running) < self.most

    def drop_cancelled(self) -> None:
        for sequence in [*self._waiting, *self.running]:
            if not sequence.ended and sequence.study.cancelled.is_set():
                sequence.fault = StudyFault("cancelled", "The study was cancelled.")

    def retire(self) -> list[Sequence]:
        """Those that have ended leave, and their slots are cleared."""
        ended = [sequence for sequence in [*self.running, *self._waiting] if sequence.ended]
        self._waiting = deque(sequence for sequence in self._waiting if not sequence.ended)
        for sequence in ended:
            if sequence in self.running:
                self._leave(sequence)
        return ended

    def give_up(self, fault: StudyFault) -> list[Sequence]:
        """All end with this fault; returns them."""
        for sequence in [*self._waiting, *self.running]:
            sequence.fault = fault
        return self.retire()

    def begin_again(self, batch: list[Sequence]) -> None:
        """These, which are running, wait at the front, as if they hadn't begun."""
        for sequence in reversed(batch):
            self._leave(sequence)
            sequence.reset()
            self._waiting.appendleft(sequence)

    def _leave(self, sequence: Sequence) -> None:
        slot, last = self.running.index(sequence), len(self.running) - 1
        if slot != last:
            self._slots.move(last, slot)
            self.running[slot] = self.running[last]
        self.running.pop()
        self._slots.clear(last)
