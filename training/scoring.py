"""How well predicted reports agree with the true ones.

Within a study, predicted and true findings of one term (finding and side) are paired one to one, the pair of
the highest IoU first. A pair is a true positive whatever its IoU; the boxes are judged by the mean IoU over the
pairs, and by match accuracy, which wants finding, side and place.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from pydantic import BaseModel

from shared.findings import TERMS
from shared.grammar import LocatedFinding, LocBox, MalformedReport, ReportText, parse

MATCHING_IOU = 0.5
"""From this overlap on, a box of the right finding and side counts as a match."""


class Prediction(BaseModel):
    """One study of a results file."""

    id: str
    truth: str
    prediction: str
    abstained: bool = False


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
        flagged_rate: share of the studies that the model declined to read.
        terms: counts for each finding and side that occurs in truth or prediction.
        mean_iou: over paired findings; 0 when there are none.
        match_accuracy: share of the true findings that were told with their side and an IoU >= 0.5.
    """

    studies: int
    parse_rate: float
    exact_findings: float
    flagged_rate: float
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
        terms = {
            term: {**asdict(counts), **ratios(counts), "mean_iou": self.term_iou.get(term)}
            for term, counts in self.terms.items()
        }
        return {
            "studies": self.studies,
            "parse_rate": self.parse_rate,
            "exact_findings": self.exact_findings,
            "flagged_rate": self.flagged_rate,
            "micro": {**asdict(self.micro), **ratios(self.micro)},
            "micro_f1": self.micro.f1,
            "macro_f1": self.macro_f1,
            "mean_iou": self.mean_iou,
            "match_accuracy": self.match_accuracy,
            "terms": terms,
        }


@dataclass(frozen=True)
class Tally:
    """What one study adds to the scores; ``ious`` has a value for each pair."""

    counts: dict[str, Counts]
    ious: dict[str, list[float]]
    parsed: bool
    exact: bool
    flagged: bool


def tally(study: Prediction) -> Tally:
    """Compare one study's reports. Raises MalformedReport if the truth is no report of the grammar."""
    truth = _by_term(parse(study.truth))
    try:
        predicted, parsed = _by_term(parse(study.prediction)), True
    except MalformedReport:
        predicted, parsed = {}, False
    counts, ious = {}, {}
    for term in truth.keys() | predicted.keys():
        true_boxes, predicted_boxes = truth.get(term, []), predicted.get(term, [])
        ious[term] = pair(true_boxes, predicted_boxes)
        paired = len(ious[term])
        counts[term] = Counts(paired, len(predicted_boxes) - paired, len(true_boxes) - paired)
    exact = {term: len(boxes) for term, boxes in truth.items()} == {
        term: len(boxes) for term, boxes in predicted.items()
    }
    return Tally(counts, ious, parsed, exact, study.abstained)


def combine(tallies: Sequence[Tally]) -> Scores:
    counts: defaultdict[str, Counts] = defaultdict(Counts)
    ious: defaultdict[str, list[float]] = defaultdict(list)
    for one in tallies:
        for term in one.counts:
            counts[term] += one.counts[term]
            ious[term] += one.ious[term]
    overlaps = [iou for values in ious.values() for iou in values]
    true_findings = sum(one.true_positives + one.false_negatives for one in counts.values())
    return Scores(
        studies=len(tallies),
        parse_rate=_ratio(sum(one.parsed for one in tallies), len(tallies)),
        exact_findings=_ratio(sum(one.exact for one in tallies), len(tallies)),
        flagged_rate=_ratio(sum(one.flagged for one in tallies), len(tallies)),
        terms={term: counts[term] for term in TERMS if term in counts},
        term_iou={term: _ratio(sum(values), len(values)) for term, values in ious.items() if values},
        mean_iou=_ratio(sum(overlaps), len(overlaps)),
        match_accuracy=_ratio(sum(iou >= MATCHING_IOU for iou in overlaps), true_findings),
    )


def score(predictions: Iterable[Prediction]) -> Scores:
    """Judge predictions. Raises MalformedReport if a truth is no report of the grammar."""
    return combine([tally(study) for study in predictions])


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


def _by_term(report: ReportText) -> dict[str, list[LocBox]]:
    boxes: defaultdict[str, list[LocBox]] = defaultdict(list)
    for one in report.locations:
        boxes[term_of(one)].append(one.box)
    return dict(boxes)


def term_of(one: LocatedFinding) -> str:
    return f"{one.finding.label} {one.laterality}" if one.laterality else one.finding.label


def _area(box: LocBox) -> int:
    return (box.ymax - box.ymin) * (box.xmax - box.xmin)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def ratios(counts: Counts) -> dict[str, float]:
    return {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}
