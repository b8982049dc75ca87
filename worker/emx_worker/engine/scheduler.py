"""Decides which sequences go through the next forward pass."""

from collections import deque

from emx_worker.engine.sequence import ReportSequence
from emx_worker.engine.slot_cache import SlotCache
from emx_worker.image_task import CANCELLED_FAULT, ImageFault

PREFILL_BATCH = 8
"""Images are encoded faster eight at a time than one by one: while others are decoded, a waiting image waits for
this many, or for ``MAX_DEFERRED_STEPS``."""

MAX_DEFERRED_STEPS = 4
"""Decoding steps for which a waiting image may be deferred until a prefill batch is full."""


class Scheduler:
    """Starts sequences in the order in which they came, as many at once as there are slots.

    Attributes:
        running: the sequences that have begun; the n-th of them holds slot n.
        most: how many may run together: the number of slots, or fewer after memory has run out.
    """

    def __init__(self, slots: SlotCache) -> None:
        self._slots = slots
        self._waiting: deque[ReportSequence] = deque()
        self._deferred_steps = 0
        self.running: list[ReportSequence] = []
        self.most = slots.count

    @property
    def busy(self) -> bool:
        """Tell whether any sequence is waiting or running."""
        return bool(self.running or self._waiting)

    def add(self, sequence: ReportSequence) -> None:
        """Queue a sequence that has not begun."""
        self._waiting.append(sequence)

    def schedule(self) -> list[ReportSequence]:
        """Return the sequences to prefill if any wait and there is room, else all that are running."""
        fresh: list[ReportSequence] = []
        self._deferred_steps += 1
        if not self.running or len(self._waiting) >= PREFILL_BATCH or self._deferred_steps >= MAX_DEFERRED_STEPS:
            while self._waiting and self._may_begin(self._waiting[0]):
                fresh.append(self._waiting.popleft())
                self.running.append(fresh[-1])
        if fresh or not self._waiting:
            self._deferred_steps = 0
        return fresh or list(self.running)

    def _may_begin(self, sequence: ReportSequence) -> bool:
        if any(other.alone for other in self.running) or (sequence.alone and self.running):
            return False
        return len(self.running) < self.most

    def drop_cancelled(self) -> None:
        """End the sequences whose images were cancelled."""
        for sequence in [*self._waiting, *self.running]:
            if not sequence.ended and sequence.task.cancelled.is_set():
                sequence.fault = CANCELLED_FAULT

    def retire(self) -> list[ReportSequence]:
        """Remove the sequences that have ended, clear their slots, and return them."""
        ended = [sequence for sequence in [*self.running, *self._waiting] if sequence.ended]
        self._waiting = deque(sequence for sequence in self._waiting if not sequence.ended)
        for sequence in ended:
            if sequence in self.running:
                self._leave(sequence)
        return ended

    def fail_all(self, fault: ImageFault) -> list[ReportSequence]:
        """End all sequences with a fault, and return them."""
        for sequence in [*self._waiting, *self.running]:
            sequence.fault = fault
        return self.retire()

    def requeue(self, batch: list[ReportSequence]) -> None:
        """Put running sequences back at the front of the queue, as if they had not begun."""
        for sequence in reversed(batch):
            self._leave(sequence)
            sequence.reset()
            self._waiting.appendleft(sequence)

    def _leave(self, sequence: ReportSequence) -> None:
        slot, last = self.running.index(sequence), len(self.running) - 1
        if slot != last:
            self._slots.move(last, slot)
            self.running[slot] = self.running[last]
        self.running.pop()
        self._slots.clear(last)
