"""One study on its way through the engine."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor

from emx_shared.grammar import MalformedReport, Notation
from emx_worker.engine.confidence import finding_probabilities
from emx_worker.engine.constraint import Constraint
from emx_worker.report_builder import GRAMMAR_FAULT, Reading, Study, StudyFault, abstention


@dataclass(eq=False)
class Sequence:
    """The state of one study while it is being read.

    Attributes:
        question: that the model is asked.
        notation: in which its report is written.
        begin: makes the constraint of its report.
        alone: whether it runs without batch-mates, as it may have broken a batch.
        features: what stands for the image in the prompt, (image tokens, width); None before and after.
        tokens: of the report so far.
        probabilities: of each token among those that were allowed; 1 where it was forced.
        held: tokens in its slot, the prompt's included; 0 before the prefill.
        prompt_tokens: length of its prompt, image tokens included; 0 before the prefill.
        fault: why it ended without a report.
        declined: why the guard keeps the model from reading it.
        marks: when its image began to be encoded, its prefill ended, its report ended; seconds of a clock.
    """

    study: Study
    question: str
    notation: Notation
    begin: Callable[[], Constraint]
    alone: bool = False
    features: Tensor | None = None
    tokens: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    held: int = 0
    prompt_tokens: int = 0
    fault: StudyFault | None = None
    declined: str | None = None
    marks: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Back to the report's opening."""
        self.constraint = self.begin()
        self.tokens = list(self.constraint.opening)
        self.probabilities = [1.0] * len(self.tokens)
        self.held, self.marks = 0, []

    @property
    def ended(self) -> bool:
        return self.fault is not None or self.declined is not None or self.constraint.finished

    def mark(self) -> None:
        self.marks.append(time.perf_counter())

    def outcome(self) -> Reading | StudyFault:
        """The reading, once ``ended``."""
        if self.fault is not None:
            return self.fault
        began, prefilled, *_ = self.marks
        if self.declined is not None:
            return abstention(self.declined, self.prompt_tokens, prefilled - began)
        try:
            parsed = self.notation.parse(self.constraint.text)
        except MalformedReport:
            return GRAMMAR_FAULT
        # A box that the ending had to invent is no finding of the model's.
        whole = replace(parsed, locations=parsed.locations[: self.constraint.whole])
        return Reading(
            text=self.constraint.text,
            parsed=whole,
            cut_short=self.constraint.cut_short,
            prompt_tokens=self.prompt_tokens,
            tokens=tuple(self.tokens),
            prefill_seconds=prefilled - began,
            generate_seconds=self.marks[-1] - prefilled,
            token_probabilities=tuple(self.probabilities),
            probabilities=finding_probabilities(
                whole,
                self.notation.naming(self.constraint.text)[: len(whole.locations)],
                self.constraint.pieces,
                self.probabilities,
            ),
        )
