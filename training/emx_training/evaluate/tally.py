"""What one study adds to the scores.

Within a study, predicted and true findings of one term (finding and side) are paired one to one, the pair of
the highest IoU first. A pair is a true positive whatever its IoU; the boxes are judged by the IoU of the pairs.
"""

from collections import defaultdict
from dataclasses import dataclass

from emx_shared.grammar import LocBox
from emx_training.evaluate.average_precision import Detection, detections
from emx_training.evaluate.overlap import pair
from emx_training.evaluate.predictions import Case, ForcedTokens
from emx_training.evaluate.text_metrics import Wording, wording


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
class Tally:
    """One study's part.

    Attributes:
        counts, ious, detections: of each term in truth or prediction; an IoU for each pair.
        parsed: whether the prediction is a report of the grammar.
        exact: whether a report was given, and its findings and sides are all the true ones and no others.
        flagged: whether the model declined to read the study.
        tokens: under teacher forcing; None where not measured.
    """

    counts: dict[str, Counts]
    ious: dict[str, list[float]]
    detections: dict[str, list[Detection]]
    parsed: bool
    exact: bool
    flagged: bool
    wording: Wording
    tokens: ForcedTokens | None


@dataclass(frozen=True)
class _Told:
    box: LocBox
    probability: float


def tally(case: Case) -> Tally:
    truth: defaultdict[str, list[LocBox]] = defaultdict(list)
    for one in case.truth.locations:
        truth[one.term].append(one.box)
    predicted: defaultdict[str, list[_Told]] = defaultdict(list)
    sure = case.probabilities or (1.0,) * len(case.told.locations)
    for one, probability in zip(case.told.locations, sure, strict=True):
        predicted[one.term].append(_Told(one.box, probability))

    counts, ious, found = {}, {}, {}
    for term in sorted(truth.keys() | predicted.keys()):
        boxes, told = truth[term], predicted[term]
        ious[term] = [paired.iou for paired in pair(boxes, [one.box for one in told])]
        paired = len(ious[term])
        counts[term] = Counts(paired, len(told) - paired, len(boxes) - paired)
        found[term] = detections(boxes, [one.box for one in told], [one.probability for one in told])
    right = all(not count.false_positives and not count.false_negatives for count in counts.values())
    return Tally(
        counts=counts,
        ious=ious,
        detections=found,
        parsed=case.parsed,
        exact=right and case.parsed and not case.abstained,
        flagged=case.abstained,
        wording=wording(case.truth, case.told),
        tokens=case.tokens,
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
