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
from worker.engine.constraint import Constraint
from worker.engine.engine import Engine
from worker.engine.runner import Runner
from worker.engine.sequence import Sequence
from worker.guard import Guard, features
from worker.loading import LoadedModel, ModelError
from worker.study import CUT_SHORT_WARNING, NOT_READ, Reading, Study, StudyFault, report_of

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


def test_what_the_guard_does_not_know_is_not_read_and_its_batch_mates_are(
    dense: LoadedModel, studies: Studies
) -> None:
    tower = dense.model.model.vision_tower
    pixels = [
        Engine(dense)._runner.pixels(Sequence(study, Constraint(dense.dialect, 100))) for study in studies(4)
    ]
    with torch.inference_mode():
        seen = features(tower(torch.cat(pixels)).last_hidden_state)
    centre, second = seen[0], (seen - seen[0]).norm(dim=1).sort().values[2].item()
    guard = Guard(centre, torch.eye(len(centre)), threshold=second)  # reads the three nearest
    guarded = replace(dense, guard=guard)
    plain, answers = Engine(dense).write(studies(4)), Engine(guarded).write(studies(4))
    declined = [answer.declined for answer in answers if isinstance(answer, Reading)]
    assert len([reason for reason in declined if reason]) == 1
    for answer, unguarded in zip(answers, plain, strict=True):
        assert isinstance(answer, Reading) and isinstance(unguarded, Reading)
        assert parse(answer.text) == (NOT_READ if answer.declined else unguarded.parsed)
    strange = declined.index(next(reason for reason in declined if reason))
    report = Engine(guarded).read(studies(4))[strange]
    assert isinstance(report, Report)
    assert report.abstained and not report.locations
    assert report.warnings[0].startswith("Not read: this image is unlike those that the model was trained on")
    assert report.tokens.generated == 0


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


def test_each_finding_has_the_probability_of_the_tokens_that_named_it(
    loaded: LoadedModel, studies: Studies
) -> None:
    located = 0
    for study, reading in zip(studies(6), Engine(loaded).write(studies(6)), strict=True):
        assert isinstance(reading, Reading)
        assert len(reading.token_probabilities) == len(reading.tokens)
        assert all(0 < probability <= 1 for probability in reading.token_probabilities)
        assert min(reading.token_probabilities) < 1
        assert len(reading.probabilities) == len(reading.parsed.locations)
        report = report_of(study, reading, loaded.provenance)
        told = [place.probability for place in report.locations]
        assert told == [round(probability, 4) for probability in reading.probabilities]
        located += len(reading.probabilities)
    assert located


def test_a_forced_token_is_certain(dense: LoadedModel, studies: Studies) -> None:
    engine = Engine(replace(dense, max_new_tokens=40))
    begun, forced = engine._begun, list[bool]()

    def watched(study: Study) -> Any:
        sequence = begun(study)
        allowed = sequence.constraint.allowed

        def noting() -> torch.Tensor:
            mask = allowed()
            forced.append(sequence.constraint.cut_short or int(mask.sum()) == 1)
            return mask

        sequence.constraint.allowed = noting
        return sequence

    engine._begun = watched  # type: ignore[method-assign]
    (reading,) = engine.write(studies(1))
    assert isinstance(reading, Reading)
    assert reading.cut_short
    assert [p == 1 for p, certain in zip(reading.token_probabilities, forced, strict=True) if certain].count(
        False
    ) == 0
    assert forced.count(True) > 10
    assert min(reading.token_probabilities) < 0.5
