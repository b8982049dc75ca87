"""Decides which sequences go through the next forward pass."""

from collections import deque
from collections.abc import Iterable

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

    Urgent ones come first: while any is running, the others pause in their slots; and where no slot is free, one
    of the others is begun anew later.

    Attributes:
        running: the sequences that have begun; the n-th of them holds slot n. Urgent ones hold the first slots.
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
        if sequence.urgent:
            self._waiting.insert(self._urgent_among(self._waiting), sequence)
        else:
            self._waiting.append(sequence)

    def schedule(self) -> list[ReportSequence]:
        """Return the sequences to prefill if any wait and there is room, else those to decode.

        These are the first that are running: the urgent ones, or all if none is urgent.
        """
        fresh: list[ReportSequence] = []
        self._deferred_steps += 1
        if self._may_prefill():
            while self._next_may_begin():
                fresh.append(self._waiting.popleft())
                self._enter(fresh[-1])
        if fresh or not self._waiting:
            self._deferred_steps = 0
        return fresh or self.running[: self._urgent_among(self.running) or None]

    def _may_prefill(self) -> bool:
        if self._waiting and self._waiting[0].urgent:
            return True
        full = len(self._waiting) >= PREFILL_BATCH or self._deferred_steps >= MAX_DEFERRED_STEPS
        return not self.running or full

    def _next_may_begin(self) -> bool:
        if not self._waiting:
            return False
        sequence = self._waiting[0]
        if sequence.urgent:
            self._make_room()
        if any(other.alone for other in self.running) or (sequence.alone and self.running):
            return False
        if not sequence.urgent and self._urgent_among(self.running):
            return False
        return len(self.running) < self.most

    def _make_room(self) -> None:
        """Put back the one that has written least, or runs alone, if an urgent sequence has no place otherwise."""
        others = self.running[self._urgent_among(self.running) :]
        if others and (len(self.running) >= self.most or others[0].alone):
            self.requeue([min(others, key=lambda sequence: len(sequence.tokens))])

    @staticmethod
    def _urgent_among(sequences: Iterable[ReportSequence]) -> int:
        return sum(sequence.urgent for sequence in sequences)

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
            self._waiting.insert(0 if sequence.urgent else self._urgent_among(self._waiting), sequence)

    def _enter(self, sequence: ReportSequence) -> None:
        """Give a sequence the first free slot; an urgent one gets that after the other urgent ones."""
        last, first = len(self.running), self._urgent_among(self.running)
        self.running.append(sequence)
        if sequence.urgent and first != last:
            self._move(first, last)
            self._slots.clear(first)
            self.running[first] = sequence

    def _leave(self, sequence: ReportSequence) -> None:
        """Take a sequence's slot, and close the gap: first with the last urgent one, if this one is urgent."""
        gap = self.running.index(sequence)
        if sequence.urgent:
            gap = self._move(self._urgent_among(self.running) - 1, gap)
        last = self._move(len(self.running) - 1, gap)
        self.running.pop()
        self._slots.clear(last)

    def _move(self, source: int, target: int) -> int:
        """Move a running sequence to another slot. Return the slot that it left."""
        if source != target:
            self._slots.move(source, target)
            self.running[target] = self.running[source]
        return source
