"""The engine against transformers' own ``generate``: the same weights, the same mask, one image at a time."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from emx_worker.engine.engine import Engine
from emx_worker.engine.reference import NEAR_TIE, ReferenceGeneration, generate_reference
from emx_worker.image_task import Generation, ImageTask
from emx_worker.model.loading import LoadedModel, load_model

Tasks = Callable[[int], list[ImageTask]]


def test_the_engine_writes_what_generate_writes_one_image_at_a_time(loaded: LoadedModel, tasks: Tasks) -> None:
    same_is_written(loaded, tasks)


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("quantisation", ["none", "int4", "nf4"])
def test_it_also_writes_what_generate_writes_with_paligemma(
    paligemma_checkpoint: Path, tasks: Tasks, quantisation: str
) -> None:
    same_is_written(load_model(paligemma_checkpoint, quantisation=quantisation), tasks)


@pytest.mark.parametrize("quantisation", ["none", "int4", "nf4"])
def test_it_also_writes_what_generate_writes_in_json(
    json_checkpoint: Path, tasks: Tasks, quantisation: str
) -> None:
    same_is_written(load_model(json_checkpoint, quantisation=quantisation), tasks)


def same_is_written(loaded: LoadedModel, tasks: Tasks) -> None:
    references = [generate_reference(loaded, [task])[0] for task in tasks(8)]
    assert_clear_and_different(references)
    generations = Engine(loaded, max_batch=5).generate(tasks(8))
    for generation, reference in zip(generations, references, strict=True):
        assert isinstance(generation, Generation)
        assert reference.agrees(generation.tokens), (generation.text, reference.constraint.text)


def assert_clear_and_different(references: list[ReferenceGeneration]) -> None:
    """Check that the references differ and are no near ties; otherwise the comparison would prove little."""
    gaps = [gap for written in references for gap in written.gaps]
    assert sum(gap < NEAR_TIE for gap in gaps) < len(gaps) / 25
    assert len({written.tokens for written in references}) >= len(references) / 2
    assert len({len(written.tokens) for written in references}) > 1
    assert any(not written.constraint.cut_short for written in references)
    assert any(written.constraint.complete_locations for written in references)


def test_a_difference_is_excused_after_a_near_tie_only(dense: LoadedModel, tasks: Tasks) -> None:
    (written,) = generate_reference(dense, tasks(1))
    other = (*written.tokens[:9], written.tokens[9] + 1, *written.tokens[10:])
    assert written.agrees(written.tokens)
    assert not written.agrees(other)
    assert not written.agrees(written.tokens[:-1])
    tied = replace(written, gaps=(*written.gaps[:9], NEAR_TIE / 2, *written.gaps[10:]))
    assert tied.agrees(other) and tied.near_tie(other)


def test_generate_writes_a_batch_as_it_writes_each_image(dense: LoadedModel, tasks: Tasks) -> None:
    together = generate_reference(dense, tasks(4))
    for task, written in zip(tasks(4), together, strict=True):
        assert generate_reference(dense, [task])[0].agrees(written.tokens)
