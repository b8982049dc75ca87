"""The engine: every report parses, and what befalls one study is no other's affair."""

import io
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from shared.grammar import parse
from shared.report import DEMO_WARNING, Report
from worker.engine.engine import Engine
from worker.engine.runner import Runner
from worker.loading import LoadedModel, ModelError
from worker.study import CUT_SHORT_WARNING, Reading, Study, StudyFault

Studies = Callable[[int], list[Study]]


def texts(answers: list[Reading | StudyFault]) -> list[str]:
    return [answer.text if isinstance(answer, Reading) else answer.code for answer in answers]


@pytest.mark.parametrize("budget", [30, 70, 150])
def test_every_report_parses_at_every_budget(loaded: LoadedModel, studies: Studies, budget: int) -> None:
    for reading in Engine(replace(loaded, max_new_tokens=budget)).write(studies(5)):
        assert isinstance(reading, Reading)
        parse(reading.text)
        assert len(reading.tokens) <= budget


def test_a_budget_below_the_shortest_report_is_refused(dense: LoadedModel) -> None:
    with pytest.raises(ModelError, match=r"emx\.json"):
        Engine(replace(dense, max_new_tokens=3))


@pytest.mark.parametrize("loaded", ["none", "int4"], indirect=True)
def test_a_batch_reads_as_one_study_at_a_time_does(loaded: LoadedModel, studies: Studies) -> None:
    engine = Engine(loaded)
    together = texts(engine.write(studies(6)))
    assert together == [texts(engine.write([study]))[0] for study in studies(6)]
    assert len(set(together)) == 6


def test_more_studies_than_a_batch_holds_are_read_in_several(dense: LoadedModel, studies: Studies) -> None:
    assert texts(Engine(dense, max_batch=2).write(studies(5))) == texts(Engine(dense).write(studies(5)))
    assert Engine(dense).write([]) == []


def test_a_report_says_what_wrote_it_and_that_it_was_cut_short(dense: LoadedModel, studies: Studies) -> None:
    for report in Engine(replace(dense, max_new_tokens=40)).read(studies(2)):
        assert isinstance(report, Report)
        assert report.model == dense.provenance
        assert report.warnings == (DEMO_WARNING, CUT_SHORT_WARNING)
        assert report.tokens.generated <= 40 < report.tokens.prompt + report.tokens.generated
        assert report.timings.prefill > 0
        assert report.timings.generate > 0


@pytest.mark.parametrize("loaded", ["none", "int4"], indirect=True)
def test_a_study_whose_numbers_overflow_fails_alone(
    loaded: LoadedModel, studies: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(loaded)
    well, pixels = texts(engine.write(studies(4))), Runner.pixels

    def spoilt(runner: Runner, sequence: Any) -> torch.Tensor:
        made = pixels(runner, sequence)
        return made * float("nan") if sequence.study.id == "2" else made

    monkeypatch.setattr(Runner, "pixels", spoilt)
    assert texts(engine.write(studies(4))) == [*well[:2], "not_finite", well[3]]


def test_a_study_whose_image_the_processor_refuses_fails_alone(engine: Engine, studies: Studies) -> None:
    well, batch = texts(engine.write(studies(4))), studies(4)
    file = io.BytesIO()
    batch[1].image.save(file, "PNG")
    batch[1] = replace(batch[1], image=Image.open(io.BytesIO(file.getvalue()[:300])))
    assert texts(engine.write(batch)) == [well[0], "image", *well[2:]]


def test_a_study_whose_grammar_fails_fails_alone(
    engine: Engine, studies: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    well = texts(engine.write(studies(3)))
    begun = engine._begun

    def refusing(study: Study) -> Any:
        sequence = begun(study)
        if study.id == "1":
            sequence.constraint._matcher.consume_tokens(sequence.constraint._dialect.encode("FINDINGS"))
        return sequence

    monkeypatch.setattr(engine, "_begun", refusing)
    assert texts(engine.write(studies(3))) == [well[0], "grammar", well[2]]


def test_a_study_cancelled_in_the_middle_is_dropped_alone(
    engine: Engine, studies: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    well, batch, sizes = texts(engine.write(studies(4))), studies(4), []
    run = Runner.run

    def cancelling(runner: Runner, rows: list[Any]) -> torch.Tensor:
        sizes.append(len(rows))
        if len(sizes) == 10:
            batch[1].cancelled.set()
        return run(runner, rows)

    monkeypatch.setattr(Runner, "run", cancelling)
    assert texts(engine.write(batch)) == [well[0], "cancelled", *well[2:]]
    assert sizes[9:11] == [4, 3]


def test_a_study_cancelled_while_it_waits_costs_nothing(engine: Engine, studies: Studies) -> None:
    batch = studies(1)
    batch[0].cancelled.set()
    assert texts(engine.write(batch)) == ["cancelled"]
    assert engine.progress == 0


def test_an_exception_in_the_forward_is_raised_and_the_engine_works_afterwards(
    engine: Engine, studies: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    well, steps = texts(engine.write(studies(3))), iter(range(1000))
    run = Runner.run

    def failing(runner: Runner, rows: list[Any]) -> torch.Tensor:
        if next(steps) == 5:
            raise torch.OutOfMemoryError
        return run(runner, rows)

    monkeypatch.setattr(Runner, "run", failing)
    with pytest.raises(torch.OutOfMemoryError):
        engine.write(studies(3))
    assert texts(engine.write(studies(3))) == well


def test_progress_is_seen_within_a_prefill(engine: Engine, studies: Studies) -> None:
    """On a CPU the prefill of a large batch takes longer than a worker may seem to hang."""
    seen, layer = [], engine._loaded.model.model.language_model.layers[-1]
    hook = layer.register_forward_pre_hook(lambda *_: seen.append(engine.progress))
    study = studies(1)[0]
    engine.write([study])
    hook.remove()
    assert seen[0] >= 3  # two layers of the tower, one of the decoder
    assert seen == sorted(set(seen))
    assert not layer._forward_hooks


def test_nothing_of_a_study_stays_in_memory_after_its_report(engine: Engine, studies: Studies) -> None:
    engine.write(studies(2))
    assert engine._runner._rows == []
    assert not engine._runner._cache.get_seq_length()


def test_progress_may_be_watched_from_another_thread(engine: Engine, studies: Studies) -> None:
    done = threading.Thread(target=engine.write, args=(studies(2),))
    done.start()
    values = []
    while done.is_alive():
        values.append(engine.progress)
        done.join(0.05)
    assert values == sorted(values)
    assert engine.progress > values[0]
