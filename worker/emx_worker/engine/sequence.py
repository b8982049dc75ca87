"""One image on its way through the engine."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor

from emx_shared.grammar import BoxNotation, MalformedReport
from emx_worker.engine.confidence import finding_probabilities
from emx_worker.engine.constraint import ReportConstraint
from emx_worker.image_task import GRAMMAR_FAULT, Generation, ImageFault, ImageTask
from emx_worker.report_builder import abstention


@dataclass(eq=False)
class ReportSequence:
    """The state of one image's report while the model writes it.

    Attributes:
        task: the image.
        question: what the model is asked.
        notation: how boxes are written in this image's report.
        new_constraint: makes the constraint of the report; called again when the report is begun anew.
        alone: whether it runs without batch-mates, since it may have broken a batch.
        features: of the image in the prompt, (image tokens, width); None before encoding and after the prefill.
        tokens: of the report so far.
        probabilities: of each token among the tokens that were allowed; 1 for forced tokens.
        cached: tokens whose keys and values are in its slot, the prompt's included; 0 before the prefill.
        prompt_tokens: length of its prompt, image tokens included; 0 before the prefill.
        fault: why it ended without a report.
        declined: why the guard declined the image.
        marks: seconds of a clock at which encoding began, the prefill ended, and the report ended.
        constraint: what the report may contain next.
    """

    task: ImageTask
    question: str
    notation: BoxNotation
    new_constraint: Callable[[], ReportConstraint]
    alone: bool = False
    features: Tensor | None = None
    tokens: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    cached: int = 0
    prompt_tokens: int = 0
    fault: ImageFault | None = None
    declined: str | None = None
    marks: list[float] = field(default_factory=list)
    constraint: ReportConstraint = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Return to the report's opening."""
        self.constraint = self.new_constraint()
        self.tokens = list(self.constraint.opening)
        self.probabilities = [1.0] * len(self.tokens)
        self.cached, self.marks = 0, []

    @property
    def urgent(self) -> bool:
        """Tell whether others pause for this one."""
        return self.task.urgent

    @property
    def ended(self) -> bool:
        """Tell whether the report is finished, or will never be."""
        return self.fault is not None or self.declined is not None or self.constraint.finished

    def mark(self) -> None:
        """Note the time (see ``marks``)."""
        self.marks.append(time.perf_counter())

    def result(self) -> Generation | ImageFault:
        """Return what the model generated, or the fault. The sequence must have ended."""
        if self.fault is not None:
            return self.fault
        began, prefilled, *_ = self.marks
        if self.declined is not None:
            return abstention(self.declined, self.prompt_tokens, prefilled - began)
        try:
            parsed = self.notation.parse(self.constraint.text)
        except MalformedReport:
            return GRAMMAR_FAULT
        # A box that the ending had to invent is no finding of the model.
        parsed = replace(parsed, locations=parsed.locations[: self.constraint.complete_locations])
        return Generation(
            text=self.constraint.text,
            parsed=parsed,
            cut_short=self.constraint.cut_short,
            prompt_tokens=self.prompt_tokens,
            tokens=tuple(self.tokens),
            prefill_seconds=prefilled - began,
            generate_seconds=self.marks[-1] - prefilled,
            token_probabilities=tuple(self.probabilities),
            probabilities=finding_probabilities(
                parsed,
                self.notation.finding_spans(self.constraint.text)[: len(parsed.locations)],
                self.constraint.pieces,
                self.probabilities,
            ),
        )
