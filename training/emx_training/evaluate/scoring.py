"""How well predicted reports agree with the true ones: for each term, and over all."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from emx_shared.contracts.findings import TERMS
from emx_training.evaluate.average_precision import curve
from emx_training.evaluate.figures import figures, true_boxes
from emx_training.evaluate.predictions import Prediction, case_of
from emx_training.evaluate.tally import Counts, Tally, tally


@dataclass(frozen=True)
class Scores:
    """Agreement over a set of images.

    Attributes:
        images: how many.
        terms: counts of each term (finding and side) in truth or prediction.
        term_iou: mean IoU of each term that has pairs.
        term_ap: average precision at IoU 0.5 of each term in the truth.
        figures: over all images, by the names in ``figures.py``, which defines them.
    """

    images: int
    terms: dict[str, Counts]
    term_iou: dict[str, float]
    term_ap: dict[str, float]
    figures: dict[str, float]

    @property
    def micro(self) -> Counts:
        """Return the counts of all terms together."""
        return sum(self.terms.values(), Counts())

    @property
    def macro_f1(self) -> float:
        """Return the mean F1 over terms."""
        return self.figures["macro_f1"]

    @property
    def mean_iou(self) -> float:
        """Return the mean IoU over paired findings."""
        return self.figures["mean_iou"]

    @property
    def match_accuracy(self) -> float:
        """Return the share of true findings that are reported at an IoU of at least 0.5."""
        return self.figures["match_accuracy"]

    @property
    def exact_findings(self) -> float:
        """Return the share of images whose findings are all right."""
        return self.figures["exact_findings"]

    @property
    def parse_rate(self) -> float:
        """Return the share of predictions that follow the grammar."""
        return self.figures["parse_rate"]

    @property
    def flagged_rate(self) -> float:
        """Return the share of images that the model declined to read."""
        return self.figures["flagged_rate"]

    def summary(self) -> dict[str, object]:
        """Return everything as plain numbers, for JSON."""
        terms = {
            term: {
                **asdict(counts),
                **ratios(counts),
                "mean_iou": self.term_iou.get(term),
                "ap50": self.term_ap.get(term),
            }
            for term, counts in self.terms.items()
        }
        whole = {**asdict(self.micro), **ratios(self.micro)}
        # The key is part of the results format.
        # The files say "studies", as they did before images had their own word.
        return {"studies": self.images, **self.figures, "micro": whole, "terms": terms}


def combine(tallies: Sequence[Tally]) -> Scores:
    """Combine the tallies of images into scores."""
    counts: defaultdict[str, Counts] = defaultdict(Counts)
    ious: defaultdict[str, list[float]] = defaultdict(list)
    for one in tallies:
        for term in one.counts:
            counts[term] += one.counts[term]
            ious[term] += one.ious[term]
    once = np.ones((1, len(tallies)))
    return Scores(
        images=len(tallies),
        terms={term: counts[term] for term in TERMS if term in counts},
        term_iou={term: sum(values) / len(values) for term, values in ious.items() if values},
        term_ap={
            term: float(curve([one.detections.get(term, []) for one in tallies], truths, once).area[0])
            for term in counts
            if (truths := true_boxes(tallies, term)).any()
        },
        figures={name: float(figure(once)[0]) for name, figure in figures(tallies).items()},
    )


def score(predictions: Iterable[Prediction]) -> Scores:
    """Score predictions.

    Raises:
        BadPredictions: if a prediction is invalid.
    """
    return combine([tally(case_of(prediction)) for prediction in predictions])


def ratios(counts: Counts) -> dict[str, float]:
    """Return precision, recall and F1 by name."""
    return {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}
