"""The engine: a static batch, prefilled together and decoded together."""

import logging
from collections import deque
from collections.abc import Sequence as Studies

import torch
from torch import Tensor

from shared.report import Report
from worker.engine.constraint import Constraint, GrammarFailure, smallest_budget
from worker.engine.runner import Runner
from worker.engine.sequence import Sequence
from worker.loading import LoadedModel, ModelError
from worker.study import GRAMMAR_FAULT, Reading, Study, StudyFault, report_of

log = logging.getLogger("emx.engine")


class Engine:
    """Reads studies with one model, by greedy decoding under the report grammar.

    For one thread at a time (see ``Batcher``); ``progress`` may be read from any.
    """

    def __init__(self, loaded: LoadedModel, max_batch: int = 32) -> None:
        """``max_batch``: studies that run together. Raises ModelError if no report fits the token budget."""
        smallest = smallest_budget(loaded.dialect)
        if loaded.max_new_tokens < smallest:
            raise ModelError(
                f"max_new_tokens is {loaded.max_new_tokens}, and the shortest report has {smallest} tokens: "
                "raise it in emx.json."
            )
        self.max_batch = max_batch
        self._loaded, self._runner = loaded, Runner(loaded)

    @property
    def progress(self) -> int:
        """Steps so far (see ``Runner``); it stands still when idle, and when a forward hangs."""
        return self._runner.progress

    def read(self, studies: Studies[Study]) -> list[Report | StudyFault]:
        """A report for each study, in order, or the fault that it alone had."""
        return [
            outcome if isinstance(outcome, StudyFault) else report_of(study, outcome, self._loaded.provenance)
            for study, outcome in zip(studies, self.write(studies), strict=True)
        ]

    def write(self, studies: Studies[Study]) -> list[Reading | StudyFault]:
        """What the model writes of each study, in order. What befalls a whole batch (memory) is raised."""
        sequences = [self._begun(study) for study in studies]
        waiting, running = deque(sequences), list[Sequence]()
        try:
            while running := self._schedule(running, waiting):
                logits = self._runner.run(running)
                self._postprocess(running, logits)
        finally:
            self._runner.release()
        return [sequence.outcome(self._runner.prompt_tokens) for sequence in sequences]

    def _begun(self, study: Study) -> Sequence:
        return Sequence(study, Constraint(self._loaded.dialect, self._loaded.max_new_tokens))

    def _schedule(self, running: list[Sequence], waiting: deque[Sequence]) -> list[Sequence]:
        """The rows of this batch that go on; when none does, the next batch."""
        _drop_cancelled(running)
        if going_on := [sequence for sequence in running if not sequence.ended]:
            return going_on
        batch: list[Sequence] = []
        while waiting and len(batch) < self.max_batch:
            sequence = waiting.popleft()
            self._prepare(sequence)
            if not sequence.ended:
                batch.append(sequence)
        return batch

    def _prepare(self, sequence: Sequence) -> None:
        _drop_cancelled([sequence])
        if sequence.ended:
            return
        try:
            sequence.pixels = self._runner.pixels(sequence)
        except Exception as error:  # whatever Pillow and the processor may raise
            log.warning("image of %s refused by the processor: %s", sequence.study.id, type(error).__name__)
            sequence.fault = StudyFault("image", "The model's image processor can't take this image.")

    def _postprocess(self, batch: list[Sequence], logits: Tensor) -> None:
        """The best token that its constraint allows, for each row."""
        finite = logits.isfinite().all(dim=-1).tolist()
        allowed = torch.stack([sequence.constraint.allowed() for sequence in batch])
        logits = logits.masked_fill(~allowed, float("-inf"))
        best = logits.argmax(dim=-1)
        probabilities = logits.softmax(dim=-1).gather(1, best.unsqueeze(1)).squeeze(1)
        for sequence, is_finite, token, probability in zip(
            batch, finite, best.tolist(), probabilities.tolist(), strict=True
        ):
            if sequence.declined:
                continue
            if not is_finite:
                sequence.fault = StudyFault("not_finite", "The model's numbers overflowed on this image.")
                continue
            try:
                sequence.tokens.append(sequence.constraint.take(token))
                sequence.probabilities.append(1.0 if sequence.constraint.cut_short else probability)
            except GrammarFailure:
                log.error("the grammar failed for %s", sequence.study.id)
                sequence.fault = GRAMMAR_FAULT


def _drop_cancelled(sequences: list[Sequence]) -> None:
    for sequence in sequences:
        if not sequence.ended and sequence.study.cancelled.is_set():
            sequence.fault = StudyFault("cancelled", "The study was cancelled.")
