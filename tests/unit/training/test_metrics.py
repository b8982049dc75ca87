"""Each figure against one that was worked out by hand, or by another."""

from typing import Any

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from emx_shared.contracts.findings import TERMS
from emx_shared.grammar import LocatedFinding, LocBox, ReportText, parse
from emx_training.evaluate.baselines import best_constant_report
from emx_training.evaluate.calibration import Forecast, bins, expected_calibration_error, forecasts
from emx_training.evaluate.figures import figures
from emx_training.evaluate.intervals import Interval, bootstrap
from emx_training.evaluate.overlap import Pair, intersection_over_union, pair
from emx_training.evaluate.predictions import Case, ForcedTokens, Prediction, case_of
from emx_training.evaluate.scoring import score
from emx_training.evaluate.tally import Counts, tally
from emx_training.evaluate.text_metrics import corpus_bleu

HERE = LocBox(100, 100, 200, 200)
HALF_OVER = LocBox(100, 150, 200, 250)  # IoU with HERE: 50 / 150
ELSEWHERE = LocBox(600, 600, 700, 700)


FIGURES = {
    *[
        "micro_f1",
        "macro_f1",
        "mean_iou",
        "match_accuracy",
        "map50",
        "exact_findings",
        "bleu",
        "rouge_l",
        "parse_rate",
        "flagged_rate",
    ],
    *["token_accuracy", "token_accuracy_words", "token_accuracy_locations", "token_accuracy_locations_near"],
}


def text(*located: tuple[str, LocBox]) -> str:
    findings = tuple(LocatedFinding(*TERMS[term], box) for term, box in located)
    return str(ReportText("Something.", findings, "Something."))


def predicted(truth: str, prediction: str, **more: Any) -> Prediction:
    return Prediction(id="1", truth=truth, prediction=prediction, **more)


def intervals(predictions: list[Prediction]) -> dict[str, Interval]:
    tallies = [tally(case_of(one)) for one in predictions]
    return bootstrap(figures(tallies), len(tallies))


def test_overlap_of_boxes() -> None:
    assert intersection_over_union(HERE, HERE) == 1
    assert intersection_over_union(HERE, HALF_OVER) == pytest.approx(1 / 3)
    assert intersection_over_union(HERE, ELSEWHERE) == 0
    assert intersection_over_union(HERE, LocBox(200, 100, 300, 200)) == 0


def test_the_best_pairs_are_made_first() -> None:
    assert pair([HERE, ELSEWHERE], [HALF_OVER, HERE]) == [Pair(0, 1, 1), Pair(1, 0, 0)]
    assert pair([HERE], []) == []


def test_a_perfect_prediction_scores_one_everywhere() -> None:
    report = text(("cardiomegaly", HERE), ("nodule left", ELSEWHERE))
    scores = score([predicted(report, report), predicted(text(), text())])
    assert scores.images == 2
    assert (scores.parse_rate, scores.exact_findings, scores.mean_iou, scores.match_accuracy) == (1, 1, 1, 1)
    assert scores.micro == Counts(2, 0, 0)
    assert scores.macro_f1 == 1


def test_a_wrong_side_is_a_miss_and_a_false_alarm() -> None:
    scores = score([predicted(text(("nodule left", HERE)), text(("nodule right", HERE)))])
    assert scores.terms == {"nodule right": Counts(0, 1, 0), "nodule left": Counts(0, 0, 1)}
    assert scores.micro.f1 == scores.match_accuracy == scores.mean_iou == 0


def test_a_wrong_place_lowers_only_iou_and_match_accuracy() -> None:
    scores = score([predicted(text(("mass left", HERE)), text(("mass left", HALF_OVER)))])
    assert scores.micro == Counts(1, 0, 0)
    assert scores.exact_findings == 1
    assert scores.mean_iou == pytest.approx(1 / 3)
    assert scores.match_accuracy == 0


def test_ratios_of_a_mixed_set() -> None:
    scores = score(
        [
            predicted(text(("cardiomegaly", HERE), ("mass left", HERE)), text(("cardiomegaly", HERE))),
            predicted(text(), text(("cardiomegaly", HERE))),
            predicted(text(("cardiomegaly", HERE)), "no report"),
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


def test_the_constant_report_names_the_best_terms_with_their_mean_boxes() -> None:
    texts = [
        text(),
        text(),
        text(("mass left", LocBox(0, 0, 100, 100))),
        text(("mass left", LocBox(0, 0, 200, 200))),
    ]
    (only,) = parse(best_constant_report(texts)).locations
    assert (only.finding.label, only.laterality, only.box) == ("mass", "left", LocBox(0, 0, 150, 150))


def test_intervals_hold_the_figure_and_narrow_with_more_images() -> None:
    right, wrong = text(("nodule left", HERE)), text(("nodule right", HERE))
    tokens = ForcedTokens(words=10, right_words=9, locations=4, right_locations=0, near_locations=2)
    mixed = [
        predicted(right, right, tokens=tokens, probabilities=[0.9]),
        predicted(right, wrong, tokens=tokens.model_copy(update={"right_words": 5}), probabilities=[0.5]),
        predicted(text(), text(), abstained=True),
        predicted(right, "no report"),
    ]
    many, few = intervals(mixed * 100), intervals(mixed * 5)
    scores = score(mixed * 100)
    assert many.keys() == few.keys() == scores.figures.keys() == FIGURES
    for name, (low, high) in many.items():
        assert low <= scores.figures[name] <= high
        few_low, few_high = few[name]
        assert few_high - few_low >= high - low
    low, high = many["parse_rate"]
    assert 0.68 < low < 0.75 < high < 0.82  # the binomial's own interval for 300 of 400 is 0.708 to 0.792


def test_nothing_has_no_intervals() -> None:
    assert intervals([]) == {}


def test_an_image_that_was_declined_is_flagged_and_reports_nothing() -> None:
    report = text(("mass left", HERE))
    scores = score(
        [
            predicted(report, report, abstained=True),
            predicted(text(), text(), abstained=True),
            predicted(text(), text()),
        ]
    )
    assert scores.flagged_rate == pytest.approx(2 / 3)
    assert scores.terms == {"mass left": Counts(0, 0, 1)}
    assert scores.exact_findings == pytest.approx(1 / 3)
    assert scores.parse_rate == 1
    assert score([predicted(report, "no report", abstained=True)]).parse_rate == 0


def test_token_accuracy_is_over_all_tokens_of_the_images_that_have_them() -> None:
    tokens = ForcedTokens(words=8, right_words=6, locations=4, right_locations=1, near_locations=3)
    other = ForcedTokens(words=2, right_words=2, locations=0, right_locations=0, near_locations=0)
    scores = score(
        [
            predicted(text(), text(), tokens=tokens),
            predicted(text(), text(), tokens=other),
            predicted(text(), text()),
        ]
    )
    assert scores.figures["token_accuracy"] == 9 / 14
    assert scores.figures["token_accuracy_words"] == 8 / 10
    assert scores.figures["token_accuracy_locations"] == 1 / 4
    assert scores.figures["token_accuracy_locations_near"] == 3 / 4
    assert not [name for name in score([predicted(text(), text())]).figures if name.startswith("token")]


def test_text_is_judged_as_sacrebleu_and_rouge_score_judge_it() -> None:
    pairs = [
        ("The heart is enlarged. There is a mass.", "The heart is enlarged. There is a nodule there."),
        ("The lungs are clear.", "The heart size is normal. The lungs are clear."),
    ]
    reports = [[str(ReportText(prose, (), "Same.")) for prose in both] for both in pairs]
    truths, reported = zip(*[[f"{prose} Same." for prose in both] for both in pairs], strict=True)
    figures = score([predicted(*both) for both in reports]).figures
    assert figures["bleu"] == pytest.approx(sacrebleu.corpus_bleu(reported, [truths]).score / 100)
    scorer = RougeScorer(["rougeL"])
    rouge = [scorer.score(truth, guess)["rougeL"].fmeasure for truth, guess in zip(truths, reported, strict=True)]
    assert figures["rouge_l"] == pytest.approx(sum(rouge) / 2)
    assert corpus_bleu([0] * 10) == 0


def boxed(truth: list[LocBox], reported: list[LocBox], probabilities: list[float]) -> Prediction:
    reports = [text(*[("mass left", box) for box in boxes]) for boxes in (truth, reported)]
    return predicted(reports[0], reports[1], probabilities=probabilities)


def test_average_precision_of_a_curve_worked_out_by_hand() -> None:
    predictions = [
        boxed([HERE], [HERE], [0.9]),
        boxed([HERE], [ELSEWHERE], [0.8]),
        boxed([HERE], [HERE], [0.7]),
        boxed([HERE], [HALF_OVER], [0.6]),
    ]
    # Right, wrong, right, wrong: precision 1 at recall 1/4, then 2/3 at 2/4, and 4 true boxes.
    assert score(predictions).term_ap["mass left"] == pytest.approx(1 / 4 + 2 / 3 / 4)
    assert score(predictions).figures["map50"] == pytest.approx(1 / 4 + 2 / 3 / 4)


def test_the_surer_box_takes_the_true_one_and_the_order_in_the_file_is_no_matter() -> None:
    twice = boxed([HERE], [HERE, HERE], [0.2, 0.9])
    assert score([twice]).term_ap["mass left"] == 1
    tied = [boxed([HERE], [HERE], [0.5]), boxed([HERE], [ELSEWHERE], [0.5])]
    assert score(tied).term_ap == score(tied[::-1]).term_ap == {"mass left": 0.25}


def test_without_probabilities_a_curve_is_one_point() -> None:
    predictions = [boxed([HERE], [HERE], []), boxed([HERE], [ELSEWHERE], [])]
    assert score(predictions).term_ap["mass left"] == 0.5 * 0.5


def test_map50_is_the_mean_over_terms_that_are_true_somewhere() -> None:
    one = predicted(
        text(("mass left", HERE), ("nodule left", HERE)), text(("mass left", HERE), ("mass right", HERE))
    )
    assert score([one]).figures["map50"] == 0.5
    assert score([one]).term_ap == {"mass left": 1, "nodule left": 0}


def test_a_bootstrap_counts_an_image_drawn_twice_as_two() -> None:
    """Every figure of a resample is that of the images it consists of."""
    right, wrong = text(("nodule left", HERE)), text(("nodule right", HERE), ("mass left", HERE))
    tokens = ForcedTokens(words=10, right_words=9, locations=4, right_locations=1, near_locations=2)
    one, other = (
        predicted(right, right, probabilities=[0.4], tokens=tokens),
        predicted(right, wrong, probabilities=[0.9, 0.3]),
    )
    drawn = figures([tally(case_of(one)), tally(case_of(other))])
    for name, value in score([one, one, one, other]).figures.items():
        assert drawn[name](np.array([[3.0, 1.0]])) == pytest.approx(value), name


def stated(*pairs: tuple[float, bool]) -> list[Case]:
    right, wrong = text(("mass left", HERE)), text(("mass right", HERE))
    return [
        case_of(predicted(right, right if is_right else wrong, probabilities=[probability]))
        for probability, is_right in pairs
    ]


def test_calibration_error_is_the_mean_distance_over_tenths() -> None:
    found = forecasts(stated((0.92, True), (0.98, False), (0.25, False), (1.0, True)))
    assert expected_calibration_error(found) == pytest.approx(
        abs((0.92 + 0.98 + 1) / 3 - 2 / 3) * 3 / 4 + 0.25 / 4
    )
    assert [(tenth.forecasts, tenth.right) for tenth in bins(found)] == [(1, 0), (3, pytest.approx(2 / 3))]
    assert expected_calibration_error([]) == 0


def test_of_a_term_reported_too_often_the_most_probable_is_the_right_one() -> None:
    twice = case_of(boxed([HERE], [ELSEWHERE, HERE], [0.3, 0.8]))
    assert forecasts([twice]) == [Forecast(0.8, True), Forecast(0.3, False)]
