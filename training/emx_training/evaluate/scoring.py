"""How well predicted reports agree with the true ones: each term by itself, and the figures of the whole."""

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
    """Agreement over a set of studies.

    Attributes:
        studies: how many.
        terms: counts for each finding and side that occurs in truth or prediction.
        term_iou: mean IoU of each that has pairs.
        term_ap: average precision at IoU 0.5 of each that occurs in the truth.
        figures: of the whole, by the names in ``training/figures.py``, which defines them.
    """

    studies: int
    terms: dict[str, Counts]
    term_iou: dict[str, float]
    term_ap: dict[str, float]
    figures: dict[str, float]

    @property
    def micro(self) -> Counts:
        return sum(self.terms.values(), Counts())

    @property
    def macro_f1(self) -> float:
        return self.figures["macro_f1"]

    @property
    def mean_iou(self) -> float:
        return self.figures["mean_iou"]

    @property
    def match_accuracy(self) -> float:
        return self.figures["match_accuracy"]

    @property
    def exact_findings(self) -> float:
        return self.figures["exact_findings"]

    @property
    def parse_rate(self) -> float:
        return self.figures["parse_rate"]

    @property
    def flagged_rate(self) -> float:
        return self.figures["flagged_rate"]

    def summary(self) -> dict[str, object]:
        """Everything as plain numbers, for JSON."""
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
        return {"studies": self.studies, **self.figures, "micro": whole, "terms": terms}


def combine(tallies: Sequence[Tally]) -> Scores:
    counts: defaultdict[str, Counts] = defaultdict(Counts)
    ious: defaultdict[str, list[float]] = defaultdict(list)
    for one in tallies:
        for term in one.counts:
            counts[term] += one.counts[term]
            ious[term] += one.ious[term]
    once = np.ones((1, len(tallies)))
    return Scores(
        studies=len(tallies),
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
    """Judge predictions. Raises emx_training.evaluate.predictions.BadPredictions if one can't be judged."""
    return combine([tally(case_of(study)) for study in predictions])


def ratios(counts: Counts) -> dict[str, float]:
    return {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}
