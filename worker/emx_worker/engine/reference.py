"""What the engine must equal: transformers' own ``generate``, held to the same grammar."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PaliGemmaProcessor

from emx_worker.engine.constraint import Constraint
from emx_worker.engine.prompt import question
from emx_worker.model.loading import LoadedModel
from emx_worker.report_builder import Study

NEAR_TIE = 1e-4
"""Below this gap between the best two logits, either token is right."""


@dataclass(frozen=True)
class Written:
    """What ``generate`` wrote of a study.

    Attributes:
        gaps: for each token, by how much its logit led that of the next best; inf where it was forced.
        constraint: as it was left.
        first_seconds: until the batch's first token was asked for.
    """

    tokens: tuple[int, ...]
    gaps: tuple[float, ...]
    constraint: Constraint
    first_seconds: float

    def agrees(self, tokens: Sequence[int]) -> bool:
        """Whether these are the same, up to the first near tie that was broken the other way."""
        return self._differs(tokens) is None or self.near_tie(tokens)

    def near_tie(self, tokens: Sequence[int]) -> bool:
        """Whether the first difference to these comes after a near tie."""
        at = self._differs(tokens)
        return at is not None and at < len(self.gaps) and self.gaps[at] < NEAR_TIE

    def _differs(self, tokens: Sequence[int]) -> int | None:
        pairs = enumerate(zip_longest(self.tokens, tokens))
        return next((at for at, (mine, other) in pairs if mine != other), None)


class Held(LogitsProcessor):
    """Holds each row of ``generate`` to the grammar, forced tokens too, and notes how clear each choice was."""

    def __init__(self, loaded: LoadedModel, studies: Sequence[Study]) -> None:
        self._end, rows = min(loaded.dialect.eos), len(studies)
        notations = [loaded.dialect.notation(*study.image.size) for study in studies]
        self.constraints = [Constraint(loaded.dialect, loaded.max_new_tokens, each) for each in notations]
        self._forced = [deque(constraint.opening) for constraint in self.constraints]
        self.tokens: list[list[int]] = [[] for _ in range(rows)]
        self.gaps: list[list[float]] = [[] for _ in range(rows)]
        self.first_at: float | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
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


def generated(loaded: LoadedModel, studies: Sequence[Study]) -> list[Written]:
    """The studies, which run as one static batch."""
    began = time.perf_counter()
    each = [prepared(loaded, study) for study in studies]
    inputs = {name: torch.cat([one[name] for one in each]).to(loaded.device) for name in each[0]}
    held = Held(loaded, studies)
    loaded.model.generate(
        **inputs,
        logits_processor=LogitsProcessorList([held]),
        max_new_tokens=loaded.max_new_tokens,
        do_sample=False,
    )
    assert held.first_at is not None
    return [
        Written(tuple(tokens), tuple(gaps), constraint, held.first_at - began)
        for tokens, gaps, constraint in zip(held.tokens, held.gaps, held.constraints, strict=True)
    ]


def prepared(loaded: LoadedModel, study: Study) -> Any:
    """A study as its architecture's own processor puts it to the model."""
    image = loaded.dialect.view(study.image)
    if isinstance(loaded.processor, PaliGemmaProcessor):
        inputs = loaded.processor(images=image, text=f"<image>{question(loaded, study)}", return_tensors="pt")
        del inputs["labels"]  # it adds them always
        return inputs
    content = [{"type": "image", "image": image}, {"type": "text", "text": question(loaded, study)}]
    return loaded.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
