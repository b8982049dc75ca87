"""The engine against transformers' own ``generate``: the same weights, the same mask, one study at a time."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from emx_worker.engine.engine import Engine
from emx_worker.engine.reference import NEAR_TIE, Written, generated
from emx_worker.model.loading import LoadedModel, load_model
from emx_worker.report_builder import Reading, Study

Studies = Callable[[int], list[Study]]


def test_the_engine_writes_what_generate_writes_one_study_at_a_time(loaded: LoadedModel, studies: Studies) -> None:
    same_is_written(loaded, studies)


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("quantisation", ["none", "int4", "nf4"])
def test_so_it_does_on_paligemma(paligemma_checkpoint: Path, studies: Studies, quantisation: str) -> None:
    same_is_written(load_model(paligemma_checkpoint, quantisation=quantisation), studies)


@pytest.mark.parametrize("quantisation", ["none", "int4", "nf4"])
def test_so_it_does_in_json(json_checkpoint: Path, studies: Studies, quantisation: str) -> None:
    same_is_written(load_model(json_checkpoint, quantisation=quantisation), studies)


def same_is_written(loaded: LoadedModel, studies: Studies) -> None:
    references = [generated(loaded, [study])[0] for study in studies(8)]
    assert_clear_and_different(references)
    readings = Engine(loaded, max_batch=5).write(studies(8))
    for reading, reference in zip(readings, references, strict=True):
        assert isinstance(reading, Reading)
        assert reference.agrees(reading.tokens), (reading.text, reference.constraint.text)


def assert_clear_and_different(references: list[Written]) -> None:
    """Else the comparison would prove little."""
    gaps = [gap for written in references for gap in written.gaps]
    assert sum(gap < NEAR_TIE for gap in gaps) < len(gaps) / 50
    assert len({written.tokens for written in references}) > len(references) / 2
    assert len({len(written.tokens) for written in references}) > 1
    assert any(not written.constraint.cut_short for written in references)
    assert any(written.constraint.whole for written in references)


def test_a_difference_is_excused_after_a_near_tie_only(dense: LoadedModel, studies: Studies) -> None:
    (written,) = generated(dense, studies(1))
    other = (*written.tokens[:9], written.tokens[9] + 1, *written.tokens[10:])
    assert written.agrees(written.tokens)
    assert not written.agrees(other)
    assert not written.agrees(written.tokens[:-1])
    tied = replace(written, gaps=(*written.gaps[:9], NEAR_TIE / 2, *written.gaps[10:]))
    assert tied.agrees(other) and tied.near_tie(other)


def test_generate_writes_a_batch_as_it_writes_each_study(dense: LoadedModel, studies: Studies) -> None:
    together = generated(dense, studies(4))
    for study, written in zip(studies(4), together, strict=True):
        assert generated(dense, [study])[0].agrees(written.tokens)
