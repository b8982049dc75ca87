"""The reference that the engine must equal: transformers' own ``generate``, held to the same grammar."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PaliGemmaProcessor

from emx_worker.engine.constraint import ReportConstraint
from emx_worker.engine.prompt import question
from emx_worker.image_task import ImageTask
from emx_worker.model.loading import LoadedModel

NEAR_TIE = 1e-4
"""Gap between the best two logits below which either token is right."""


@dataclass(frozen=True)
class ReferenceGeneration:
    """The tokens that ``generate`` wrote for one image.

    Attributes:
        tokens: of the report, the end-of-turn token included.
        gaps: for each token, the difference of its logit to the next best one's; inf for forced tokens.
        constraint: in its final state.
        first_seconds: from the start until the batch's first token was requested.
    """

    tokens: tuple[int, ...]
    gaps: tuple[float, ...]
    constraint: ReportConstraint
    first_seconds: float

    def agrees(self, tokens: Sequence[int]) -> bool:
        """Tell whether other tokens are the same, up to the first near tie that was broken the other way."""
        return self._differs(tokens) is None or self.near_tie(tokens)

    def near_tie(self, tokens: Sequence[int]) -> bool:
        """Tell whether the first difference to other tokens comes at a near tie."""
        at = self._differs(tokens)
        return at is not None and at < len(self.gaps) and self.gaps[at] < NEAR_TIE

    def _differs(self, tokens: Sequence[int]) -> int | None:
        pairs = enumerate(zip_longest(self.tokens, tokens))
        return next((at for at, (mine, other) in pairs if mine != other), None)


class GrammarLogitsProcessor(LogitsProcessor):
    """Holds each row of ``generate`` to the grammar, forced tokens too, and notes how clear each choice was."""

    def __init__(self, loaded: LoadedModel, tasks: Sequence[ImageTask]) -> None:
        decoding = loaded.box_decoding
        self._end, rows = min(decoding.eos), len(tasks)
        notations = [decoding.notation(*task.image.size) for task in tasks]
        self.constraints = [ReportConstraint(decoding, loaded.max_new_tokens, each) for each in notations]
        self._forced = [deque(constraint.opening) for constraint in self.constraints]
        self.tokens: list[list[int]] = [[] for _ in range(rows)]
        self.gaps: list[list[float]] = [[] for _ in range(rows)]
        self.first_at: float | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores, (rows, vocabulary), that leave one token for each row."""
        self.first_at = self.first_at or time.perf_counter()
        chosen = [self._next(row, scores[row]) for row in range(len(scores))]
        only = torch.full_like(scores, float("-inf"))
        return only.scatter_(1, torch.tensor(chosen, device=scores.device)[:, None], 0)

    def _next(self, row: int, scores: Tensor) -> int:
        forced, constraint, gap = self._forced[row], self.constraints[row], float("inf")
        if not forced:
            if constraint.finished:
                return self._end  # generate pads the rows that have ended
            held = scores.masked_fill(~constraint.allowed().to(scores.device), float("-inf"))
            best, second = held.topk(2).values.tolist()
            forced += constraint.take(int(held.argmax()))
            gap = best - second
        self.tokens[row].append(forced.popleft())
        self.gaps[row].append(gap)
        return self.tokens[row][-1]


def generate_reference(loaded: LoadedModel, tasks: Sequence[ImageTask]) -> list[ReferenceGeneration]:
    """Read images with ``generate`` as one static batch."""
    began = time.perf_counter()
    prepared = [prepare_inputs(loaded, task) for task in tasks]
    inputs = {name: torch.cat([one[name] for one in prepared]).to(loaded.device) for name in prepared[0]}
    grammar = GrammarLogitsProcessor(loaded, tasks)
    loaded.model.generate(
        **inputs,
        logits_processor=LogitsProcessorList([grammar]),
        max_new_tokens=loaded.max_new_tokens,
        do_sample=False,
    )
    assert grammar.first_at is not None
    return [
        ReferenceGeneration(tuple(tokens), tuple(gaps), constraint, grammar.first_at - began)
        for tokens, gaps, constraint in zip(grammar.tokens, grammar.gaps, grammar.constraints, strict=True)
    ]


def prepare_inputs(loaded: LoadedModel, task: ImageTask) -> Any:
    """Prepare an image and its question with the architecture's own processor, as ``generate`` takes them."""
    image = loaded.box_decoding.view(task.image)
    if isinstance(loaded.processor, PaliGemmaProcessor):
        inputs = loaded.processor(images=image, text=f"<image>{question(loaded, task)}", return_tensors="pt")
        del inputs["labels"]  # the processor always adds them
        return inputs
    content = [{"type": "image", "image": image}, {"type": "text", "text": question(loaded, task)}]
    return loaded.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
