"""What one image adds to the scores.

In each image, predicted and true findings of one term (finding and side) are paired one to one, the pair of the
highest IoU first. A pair is a true positive whatever its IoU; the boxes are judged by the IoU of the pairs.
"""

from collections import defaultdict
from dataclasses import dataclass

from emx_shared.grammar import LocBox
from emx_training.evaluate.average_precision import Detection, detections
from emx_training.evaluate.overlap import pair
from emx_training.evaluate.predictions import Case, ForcedTokens
from emx_training.evaluate.text_metrics import TextMetrics, text_metrics


@dataclass(frozen=True)
class Counts:
    """Findings reported rightly, reported wrongly and missed, and their ratios; an undefined ratio is 0."""

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    @property
    def precision(self) -> float:
        """Return the share of reported findings that are right."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Return the share of true findings that are reported."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Return the harmonic mean of precision and recall."""
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
    """One image's part of the scores.

    Attributes:
        counts: of each term in truth or prediction.
        ious: of each term's pairs.
        detections: of each term's predicted boxes.
        parsed: whether the prediction follows the grammar.
        exact: whether there is a report, with all the true findings and sides and no others.
        flagged: whether the model declined to read the image.
        text: agreement of the text.
        tokens: under teacher forcing; None if not measured.
    """

    counts: dict[str, Counts]
    ious: dict[str, list[float]]
    detections: dict[str, list[Detection]]
    parsed: bool
    exact: bool
    flagged: bool
    text: TextMetrics
    tokens: ForcedTokens | None


@dataclass(frozen=True)
class _Reported:
    box: LocBox
    probability: float


def tally(case: Case) -> Tally:
    """Compare the two reports of an image."""
    truth: defaultdict[str, list[LocBox]] = defaultdict(list)
    for one in case.truth.locations:
        truth[one.term].append(one.box)
    predicted: defaultdict[str, list[_Reported]] = defaultdict(list)
    sure = case.probabilities or (1.0,) * len(case.reported.locations)
    for one, probability in zip(case.reported.locations, sure, strict=True):
        predicted[one.term].append(_Reported(one.box, probability))

    counts, ious, found = {}, {}, {}
    for term in sorted(truth.keys() | predicted.keys()):
        boxes, reported = truth[term], predicted[term]
        ious[term] = [paired.iou for paired in pair(boxes, [one.box for one in reported])]
        paired = len(ious[term])
        counts[term] = Counts(paired, len(reported) - paired, len(boxes) - paired)
        found[term] = detections(boxes, [one.box for one in reported], [one.probability for one in reported])
    right = all(not count.false_positives and not count.false_negatives for count in counts.values())
    return Tally(
        counts=counts,
        ious=ious,
        detections=found,
        parsed=case.parsed,
        exact=right and case.parsed and not case.abstained,
        flagged=case.abstained,
        text=text_metrics(case.truth, case.reported),
        tokens=case.tokens,
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
