import json
import subprocess
import sys
from pathlib import Path

import pytest

from shared.findings import TERMS
from shared.grammar import LocatedFinding, LocBox, ReportText, parse
from training.baselines import best_constant_report, most_frequent_report
from training.intervals import bootstrap
from training.scoring import Counts, Prediction, combine, intersection_over_union, pair, score, tally

HERE = LocBox(100, 100, 200, 200)
HALF_OVER = LocBox(100, 150, 200, 250)  # IoU with HERE: 50 / 150
ELSEWHERE = LocBox(600, 600, 700, 700)


def text(*located: tuple[str, LocBox]) -> str:
    findings = tuple(LocatedFinding(*TERMS[term], box) for term, box in located)
    return str(ReportText("Something.", findings, "Something."))


def study(truth: str, prediction: str) -> Prediction:
    return Prediction(id="1", truth=truth, prediction=prediction)


def test_overlap_of_boxes() -> None:
    assert intersection_over_union(HERE, HERE) == 1
    assert intersection_over_union(HERE, HALF_OVER) == pytest.approx(1 / 3)
    assert intersection_over_union(HERE, ELSEWHERE) == 0
    assert intersection_over_union(HERE, LocBox(200, 100, 300, 200)) == 0


def test_the_best_pairs_are_made_first() -> None:
    assert pair([HERE, ELSEWHERE], [HALF_OVER, HERE]) == [1, 0]
    assert pair([HERE], []) == []


def test_a_perfect_prediction_scores_one_everywhere() -> None:
    report = text(("cardiomegaly", HERE), ("nodule left", ELSEWHERE))
    scores = score([study(report, report), study(text(), text())])
    assert scores.studies == 2
    assert (scores.parse_rate, scores.exact_findings, scores.mean_iou, scores.match_accuracy) == (1, 1, 1, 1)
    assert scores.micro == Counts(2, 0, 0)
    assert scores.macro_f1 == 1


def test_a_wrong_side_is_a_miss_and_a_false_alarm() -> None:
    scores = score([study(text(("nodule left", HERE)), text(("nodule right", HERE)))])
    assert scores.terms == {"nodule right": Counts(0, 1, 0), "nodule left": Counts(0, 0, 1)}
    assert scores.micro.f1 == scores.match_accuracy == scores.mean_iou == 0


def test_a_wrong_place_is_told_by_iou_and_match_accuracy_only() -> None:
    scores = score([study(text(("mass left", HERE)), text(("mass left", HALF_OVER)))])
    assert scores.micro == Counts(1, 0, 0)
    assert scores.exact_findings == 1
    assert scores.mean_iou == pytest.approx(1 / 3)
    assert scores.match_accuracy == 0


def test_ratios_of_a_mixed_set() -> None:
    scores = score(
        [
            study(text(("cardiomegaly", HERE), ("mass left", HERE)), text(("cardiomegaly", HERE))),
            study(text(), text(("cardiomegaly", HERE))),
            study(text(("cardiomegaly", HERE)), "no report"),
        ]
    )
    assert scores.terms["cardiomegaly"] == Counts(1, 1, 1)
    assert scores.micro == Counts(1, 1, 2)
    assert scores.micro.precision == 0.5
    assert scores.micro.recall == pytest.approx(1 / 3)
    assert scores.micro.f1 == pytest.approx(0.4)
    assert scores.macro_f1 == pytest.approx(0.25)
    assert scores.parse_rate == pytest.approx(2 / 3)
    assert scores.exact_findings == 0
    assert scores.match_accuracy == pytest.approx(1 / 3)


def test_nothing_at_all_scores_zero_without_failing() -> None:
    scores = score([])
    assert scores.micro.f1 == scores.macro_f1 == scores.mean_iou == scores.parse_rate == 0


def test_constants_are_the_most_frequent_set_and_the_best_terms() -> None:
    texts = [
        text(),
        text(),
        text(("mass left", LocBox(0, 0, 100, 100))),
        text(("mass left", LocBox(0, 0, 200, 200))),
    ]
    assert parse(most_frequent_report([*texts, text()])).locations == ()
    (only,) = parse(best_constant_report(texts)).locations
    assert (only.finding.label, only.laterality, only.box) == ("mass", "left", LocBox(0, 0, 150, 150))


def test_the_command_reads_a_results_file(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    report = text(("nodule left", HERE))
    results.write_text(json.dumps([{"id": "a", "truth": report, "prediction": report}]))
    command = [sys.executable, "-m", "training.metrics", "--predictions", str(results)]
    told = json.loads(subprocess.check_output([*command, "--json"], text=True))
    assert told["micro"]["f1"] == told["match_accuracy"] == 1
    assert "nodule left" in subprocess.check_output(command, text=True)


def test_intervals_hold_the_figure_and_narrow_with_more_studies() -> None:
    right, wrong = text(("nodule left", HERE)), text(("nodule right", HERE))
    mixed = [study(right, right), study(right, wrong), study(text(), text()), study(right, "no report")]
    few, many = ([tally(one) for one in mixed * repeats] for repeats in (5, 100))
    scores = combine(many).summary()
    for name, (low, high) in bootstrap(many).items():
        assert low <= scores[name] <= high  # type: ignore[operator]
    for name, (low, high) in bootstrap(few).items():
        narrow_low, narrow_high = bootstrap(many)[name]
        assert high - low >= narrow_high - narrow_low
    low, high = bootstrap(many)["parse_rate"]
    assert 0.68 < low < 0.75 < high < 0.82  # the binomial's own interval for 300 of 400 is 0.708 to 0.792


def test_nothing_has_no_intervals() -> None:
    assert bootstrap([]) == {}
