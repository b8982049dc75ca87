"""How well predicted reports agree with the true ones.

``python -m training.metrics --predictions results.json`` reads a list of ``{"id", "truth", "prediction"}``,
both reports as text.

Within a study, predicted and true findings of one term (finding and side) are paired one to one, the pair of
the highest IoU first. A pair is a true positive whatever its IoU; the boxes are judged by the mean IoU over the
pairs, and by match accuracy, which wants finding, side and place.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import BaseModel, TypeAdapter
from rich.console import Console
from rich.table import Table

from shared.findings import TERMS
from shared.grammar import LocatedFinding, LocBox, MalformedReport, ReportText, parse

MATCHING_IOU = 0.5
"""From this overlap on, a box of the right finding and side counts as a match."""


class Prediction(BaseModel):
    """One study of a results file."""

    id: str
    truth: str
    prediction: str


@dataclass(frozen=True)
class Counts:
    """Findings told rightly, told wrongly and missed, and the ratios of these. 0 where a ratio has no base."""

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    @property
    def precision(self) -> float:
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        wrong = self.false_positives + self.false_negatives
        return _ratio(2 * self.true_positives, 2 * self.true_positives + wrong)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )


@dataclass(frozen=True)
class Scores:
    """Agreement over a set of studies.

    Attributes:
        studies: how many.
        parse_rate: share of the predictions that are reports of the grammar; the others count as empty.
        exact_findings: share of the studies whose set of findings and sides is right.
        terms: counts for each finding and side that occurs in truth or prediction.
        mean_iou: over paired findings; 0 when there are none.
        match_accuracy: share of the true findings that were told with their side and an IoU >= 0.5.
    """

    studies: int
    parse_rate: float
    exact_findings: float
    terms: dict[str, Counts]
    term_iou: dict[str, float]
    mean_iou: float
    match_accuracy: float

    @property
    def micro(self) -> Counts:
        return sum(self.terms.values(), Counts())

    @property
    def macro_f1(self) -> float:
        return _ratio(sum(counts.f1 for counts in self.terms.values()), len(self.terms))

    def summary(self) -> dict[str, object]:
        """Everything as plain numbers, for JSON."""
        ratios = {
            term: {**asdict(counts), **_ratios(counts), "mean_iou": self.term_iou.get(term)}
            for term, counts in self.terms.items()
        }
        return {
            "studies": self.studies,
            "parse_rate": self.parse_rate,
            "exact_findings": self.exact_findings,
            "micro": {**asdict(self.micro), **_ratios(self.micro)},
            "macro_f1": self.macro_f1,
            "mean_iou": self.mean_iou,
            "match_accuracy": self.match_accuracy,
            "terms": ratios,
        }


def score(predictions: Iterable[Prediction]) -> Scores:
    """Judge predictions. Raises MalformedReport if a truth is no report of the grammar."""
    counts: defaultdict[str, Counts] = defaultdict(Counts)
    ious: defaultdict[str, list[float]] = defaultdict(list)
    studies = parsed = exact = 0
    for study in predictions:
        truth = _by_term(parse(study.truth))
        try:
            predicted = _by_term(parse(study.prediction))
            parsed += 1
        except MalformedReport:
            predicted = {}
        for term in truth.keys() | predicted.keys():
            true_boxes, predicted_boxes = truth.get(term, []), predicted.get(term, [])
            paired = pair(true_boxes, predicted_boxes)
            ious[term] += paired
            counts[term] += Counts(len(paired), len(predicted_boxes) - len(paired), len(true_boxes) - len(paired))
        studies += 1
        exact += {term: len(boxes) for term, boxes in truth.items()} == {
            term: len(boxes) for term, boxes in predicted.items()
        }
    overlaps = [iou for values in ious.values() for iou in values]
    true_findings = sum(one.true_positives + one.false_negatives for one in counts.values())
    return Scores(
        studies=studies,
        parse_rate=_ratio(parsed, studies),
        exact_findings=_ratio(exact, studies),
        terms={term: counts[term] for term in TERMS if term in counts},
        term_iou={term: _ratio(sum(values), len(values)) for term, values in ious.items() if values},
        mean_iou=_ratio(sum(overlaps), len(overlaps)),
        match_accuracy=_ratio(sum(iou >= MATCHING_IOU for iou in overlaps), true_findings),
    )


def intersection_over_union(one: LocBox, other: LocBox) -> float:
    height = min(one.ymax, other.ymax) - max(one.ymin, other.ymin)
    width = min(one.xmax, other.xmax) - max(one.xmin, other.xmin)
    shared = max(height, 0) * max(width, 0)
    return shared / (_area(one) + _area(other) - shared)


def pair(truth: Sequence[LocBox], predicted: Sequence[LocBox]) -> list[float]:
    """IoU of each pair when boxes are paired one to one, the best pair first."""
    candidates = sorted(
        (
            (intersection_over_union(true, guess), row, column)
            for row, true in enumerate(truth)
            for column, guess in enumerate(predicted)
        ),
        key=lambda candidate: -candidate[0],
    )
    rows: set[int] = set()
    columns: set[int] = set()
    paired = []
    for iou, row, column in candidates:
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            paired.append(iou)
    return paired


def most_frequent_report(texts: Sequence[str]) -> str:
    """The constant prediction: the most frequent set of findings, each with its mean box."""
    reports = [parse(text) for text in texts]
    sets = Counter(tuple(_term(one) for one in report.locations) for report in reports)
    return _constant(sets.most_common(1)[0][0], reports)


def best_constant_report(texts: Sequence[str]) -> str:
    """A stronger constant: the most frequent terms, as many as give the highest micro-F1 on these texts."""
    reports = [parse(text) for text in texts]
    frequency = Counter(_term(one) for report in reports for one in report.locations).most_common()
    total = sum(count for _, count in frequency)

    def micro_f1(told: int) -> float:
        right = sum(count for _, count in frequency[:told])
        return 2 * right / (told * len(texts) + total)

    told = max(range(1, len(frequency) + 1), key=micro_f1)
    return _constant([term for term, _ in frequency[:told]], reports)


def _constant(terms: Sequence[str], reports: Sequence[ReportText]) -> str:
    boxes: defaultdict[str, list[LocBox]] = defaultdict(list)
    for report in reports:
        for one in report.locations:
            boxes[_term(one)].append(one.box)
    located = tuple(LocatedFinding(*TERMS[term], _mean(boxes[term])) for term in terms)
    return str(ReportText("Constant.", located, "Constant."))


def _mean(boxes: Sequence[LocBox]) -> LocBox:
    ymin, xmin, ymax, xmax = (
        round(sum(getattr(box, side) for box in boxes) / len(boxes)) for side in ("ymin", "xmin", "ymax", "xmax")
    )
    return LocBox(ymin, xmin, ymax, xmax)


def _by_term(report: ReportText) -> dict[str, list[LocBox]]:
    boxes: defaultdict[str, list[LocBox]] = defaultdict(list)
    for one in report.locations:
        boxes[_term(one)].append(one.box)
    return dict(boxes)


def _term(one: LocatedFinding) -> str:
    return f"{one.finding.label} {one.laterality}" if one.laterality else one.finding.label


def _area(box: LocBox) -> int:
    return (box.ymax - box.ymin) * (box.xmax - box.xmin)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _ratios(counts: Counts) -> dict[str, float]:
    return {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}


def _table(scores: Scores) -> Table:
    table = Table("finding", "n", "precision", "recall", "F1", "IoU")
    for term, counts in [*scores.terms.items(), ("all (micro)", scores.micro)]:
        iou = scores.mean_iou if term == "all (micro)" else scores.term_iou.get(term)
        ratios = [f"{value:.3f}" for value in _ratios(counts).values()]
        known = str(counts.true_positives + counts.false_negatives)
        table.add_row(term, known, *ratios, "" if iou is None else f"{iou:.3f}")
    table.caption = (
        f"{scores.studies} studies, {scores.parse_rate:.1%} parsed, exact findings {scores.exact_findings:.1%}, "
        f"macro F1 {scores.macro_f1:.3f}, match accuracy {scores.match_accuracy:.1%}"
    )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Agreement of predicted reports with the true ones.")
    parser.add_argument("--predictions", type=Path, required=True, metavar="RESULTS.JSON")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    predictions = TypeAdapter(list[Prediction]).validate_json(options.predictions.read_bytes())
    scores = score(predictions)
    if options.json:
        print(json.dumps(scores.summary(), indent=2))
    else:
        Console().print(_table(scores))


if __name__ == "__main__":
    main()
