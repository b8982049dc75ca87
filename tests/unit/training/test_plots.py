"""The plots: what they count, and that they are written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emx_shared.contracts.findings import TERMS
from emx_shared.grammar import LocatedFinding, LocBox, ReportText
from emx_training.evaluate.predictions import Case, Prediction, case_of
from emx_training.evaluate.tally import tally
from emx_training.plots import draw_plots
from emx_training.plots.confusion import NONE, confusions
from emx_training.plots.worst_cases import agreement

HERE = LocBox(100, 100, 200, 200)
HALF_OVER = LocBox(100, 150, 200, 250)  # IoU with HERE: 50 / 150
ELSEWHERE = LocBox(600, 600, 700, 700)


def text(*located: tuple[str, LocBox]) -> str:
    findings = tuple(LocatedFinding(*TERMS[term], box) for term, box in located)
    return str(ReportText("Something.", findings, "Something."))


def case(truth: str, reported: str, **more: object) -> Case:
    return case_of(Prediction.model_validate({"id": "10000000", "truth": truth, "prediction": reported, **more}))


def test_each_finding_is_counted_once_and_the_right_term_comes_first() -> None:
    truth = text(("mass left", HERE), ("nodule left", ELSEWHERE))
    reported = text(("mass left", ELSEWHERE), ("consolidation left", HALF_OVER))
    # The mass is reported in the wrong place; the consolidation lies on nothing that is left.
    assert confusions([case(truth, reported)]) == {
        ("mass left", "mass left"): 1,
        ("nodule left", NONE): 1,
        (NONE, "consolidation left"): 1,
    }


def test_a_wrong_word_for_the_right_place_and_a_wrong_side_are_confusions() -> None:
    truth = text(("mass left", HERE), ("pneumothorax right", ELSEWHERE))
    reported = text(("pneumothorax left", LocBox(0, 0, 9, 9)), ("nodule left", HALF_OVER))
    assert confusions([case(truth, reported)]) == {
        ("mass left", "nodule left"): 1,
        ("pneumothorax right", "pneumothorax left"): 1,
    }


def test_agreement_falls_with_missed_false_and_misplaced_findings() -> None:
    both = text(("mass left", HERE), ("nodule right", ELSEWHERE))
    assert agreement(case(both, both)) == 1
    assert agreement(case(both, text(("mass left", HERE)))) == 0.5
    assert agreement(case(text(("mass left", HERE)), text(("mass left", HALF_OVER)))) == pytest.approx(1 / 3)
    assert agreement(case(text(), text(("mass left", HERE)))) == 0
    assert agreement(case(text(), text())) == 1
    assert agreement(case(text(), text(), abstained=True)) == 0


def test_all_plots_are_written_as_pictures_with_something_on_them(tmp_path: Path) -> None:
    report = text(("mass left", HERE))
    cases = [
        case(report, text(("nodule left", HERE)), probabilities=[0.6], site="alpha"),
        case(report, report, probabilities=[0.9], site="gamma"),
    ]
    lines = draw_plots(cases, [tally(one) for one in cases], tmp_path / "plots")
    names = ("confusion", "precision_recall", "reliability", "worst_cases")
    assert sorted(path.stem for path in (tmp_path / "plots").iterdir()) == list(names)
    assert len(lines) == 4
    for name in names:
        with Image.open(tmp_path / "plots" / f"{name}.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20, name


def test_what_cannot_be_drawn_is_left_out_with_the_reason(tmp_path: Path) -> None:
    cases = [case(text(), text(), id="patient 7")]
    lines = draw_plots(cases, [tally(one) for one in cases], tmp_path)
    for name in ("precision_recall", "confusion", "reliability", "worst_cases"):
        assert f"{name}.png is left out: " in " ".join(lines)
    assert not list(tmp_path.iterdir())
