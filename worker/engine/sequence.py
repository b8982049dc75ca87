"""One study on its way through the engine."""

from dataclasses import dataclass, field, replace

from torch import Tensor

from shared.grammar import MalformedReport, parse
from worker.confidence import finding_probabilities
from worker.engine.constraint import Constraint
from worker.study import GRAMMAR_FAULT, Reading, Study, StudyFault, abstention


@dataclass(eq=False)
class Sequence:
    """The state of one study while it is being read.

    Attributes:
        pixels: the model's input, fp32 (1, 3, side, side); None once it has been encoded.
        tokens: generated so far.
        probabilities: of each token among those that were allowed; 1 where it was forced.
        fault: why it ended without a report.
        declined: why the guard keeps the model from reading it.
        prefill_seconds, generate_seconds: spent so far by the batch it runs in.
    """

    study: Study
    constraint: Constraint
    pixels: Tensor | None = None
    tokens: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    fault: StudyFault | None = None
    declined: str | None = None
    prefill_seconds: float = 0.0
    generate_seconds: float = 0.0

    @property
    def ended(self) -> bool:
        return self.fault is not None or self.declined is not None or self.constraint.finished

    def outcome(self, prompt_tokens: int) -> Reading | StudyFault:
        """The reading, once ``ended``."""
        if self.fault is not None:
            return self.fault
        if self.declined is not None:
            return abstention(self.declined, prompt_tokens, self.prefill_seconds)
        try:
            parsed = parse(self.constraint.text)
        except MalformedReport:
            return GRAMMAR_FAULT
        # A box that the ending had to invent is no finding of the model's.
        whole = replace(parsed, locations=parsed.locations[: self.constraint.whole_boxes])
        return Reading(
            text=self.constraint.text,
            parsed=whole,
            cut_short=self.constraint.cut_short,
            prompt_tokens=prompt_tokens,
            tokens=tuple(self.tokens),
            prefill_seconds=self.prefill_seconds,
            generate_seconds=self.generate_seconds,
            token_probabilities=tuple(self.probabilities),
            probabilities=finding_probabilities(whole, self.constraint.pieces, self.probabilities),
        )
