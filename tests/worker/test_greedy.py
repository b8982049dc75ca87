"""The engine against transformers' own ``generate``: the same weights, the same mask, one study at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PaliGemmaProcessor

from worker.engine.constraint import Constraint
from worker.engine.engine import Engine
from worker.loading import LoadedModel, load_model
from worker.study import Reading, Study

Studies = Callable[[int], list[Study]]
NEAR_TIE = 1e-4
"""Below this gap between the best two logits, either token is right."""


@dataclass
class Held(LogitsProcessor):
    """Holds ``generate`` to the grammar, and notes how clear each choice was."""

    constraint: Constraint
    gaps: list[float] = field(default_factory=list)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        allowed = self.constraint.allowed()
        best, second = scores[0].masked_fill(~allowed, float("-inf")).topk(2).values.tolist()
        self.gaps.append(best - second)
        taken = self.constraint.take(int(scores[0].masked_fill(~allowed, float("-inf")).argmax()))
        only = torch.full_like(scores, float("-inf"))
        only[0, taken] = 0
        return only


def prepared(loaded: LoadedModel, study: Study) -> Any:
    """A study as its architecture's own processor puts it to the model."""
    image = study.image.convert("RGB")
    if isinstance(loaded.processor, PaliGemmaProcessor):
        inputs = loaded.processor(images=image, text=f"<image>{loaded.prompt}", return_tensors="pt")
        del inputs["labels"]  # it adds them always
        return inputs
    content = [{"type": "image", "image": image}, {"type": "text", "text": loaded.prompt}]
    return loaded.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def generated(loaded: LoadedModel, study: Study) -> tuple[list[int], Held]:
    """The tokens that transformers writes of a study."""
    inputs = prepared(loaded, study)
    held = Held(Constraint(loaded.dialect, loaded.max_new_tokens))
    ids = loaded.model.generate(
        **inputs,
        logits_processor=LogitsProcessorList([held]),
        max_new_tokens=loaded.max_new_tokens,
        do_sample=False,
    )
    return ids[0, inputs["input_ids"].shape[1] :].tolist(), held


def agree(tokens: tuple[int, ...], reference: list[int], held: Held) -> bool:
    """Whether the same was written, up to the reference's first near tie that was broken the other way."""
    differs = next((n for n, (a, b) in enumerate(zip(tokens, reference, strict=False)) if a != b), None)
    if differs is None:
        return len(tokens) == len(reference)
    return held.gaps[differs] < NEAR_TIE


def assert_clear_and_different(references: list[tuple[list[int], Held]]) -> None:
    """Else the comparison would prove little."""
    gaps = [gap for _, held in references for gap in held.gaps]
    assert sum(gap < NEAR_TIE for gap in gaps) < len(gaps) / 50
    assert len({tuple(tokens) for tokens, _ in references}) == len(references)
    assert len({len(tokens) for tokens, _ in references}) > 3
    assert any(not held.constraint.cut_short for _, held in references)
    assert any(held.constraint.whole_boxes for _, held in references)


def test_the_engine_writes_what_generate_writes_one_study_at_a_time(loaded: LoadedModel, studies: Studies) -> None:
    same_is_written(loaded, studies)


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("quantisation", ["none", "int4", "nf4"])
def test_so_it_does_on_paligemma(paligemma_checkpoint: Path, studies: Studies, quantisation: str) -> None:
    same_is_written(load_model(paligemma_checkpoint, quantisation=quantisation), studies)


def same_is_written(loaded: LoadedModel, studies: Studies) -> None:
    references = [generated(loaded, study) for study in studies(8)]
    assert_clear_and_different(references)
    readings = Engine(loaded).write(studies(8))
    for reading, (reference, held) in zip(readings, references, strict=True):
        assert isinstance(reading, Reading)
        assert agree(reading.tokens, reference, held), (reading.text, held.constraint.text)
