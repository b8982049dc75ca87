"""How well reports agree with those of a collection of radiographs: only what its table can tell.

Beside the figures of ``figures.py`` there are, for findings by their labels, without sides:

text_label_f1, text_label_macro_f1: findings that the predicted text states (``report_labels.py``), beside the true
ones; over all, and as mean of the findings. Of the kind of CheXbert's F1, with rules for a labeller.
location_label_f1, location_label_macro_f1: the same for findings that LOCATIONS names.
entailment_precision, entailment_recall, entailment_f1: see ``entailment.py``.

A figure that can't be computed isn't 0: ``CollectionScores.absent`` says why there is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from emx_shared.contracts.findings import BY_LABEL
from emx_training.evaluate.average_precision import Array, ratio
from emx_training.evaluate.calibration import Bin, Forecast, bins, expected_calibration_error, forecasts
from emx_training.evaluate.entailment import EntailedSentences, Judge
from emx_training.evaluate.figures import Figure, figures
from emx_training.evaluate.intervals import Interval, bootstrap
from emx_training.evaluate.predictions import Case, Prediction, case_of
from emx_training.evaluate.report_labels import stated_findings
from emx_training.evaluate.tally import Counts, tally
from emx_training.evaluate.true_reports import TrueReport, TrueTable, patients_of, prose_of

_OF_BOXES = ("micro_f1", "macro_f1", "mean_iou", "match_accuracy", "map50", "exact_findings")
_OF_TEXT = ("bleu", "rouge_l")

_NO_BOXES = "the table says nothing of where findings are"
_NO_TEXT = "the table has no text by a radiologist"
_NOT_BUILT_IN = "needs its own model's weights, which this software neither has nor loads"


@dataclass(frozen=True)
class JudgedImage:
    """One image with its true report, the predicted one, and the findings that each of its parts names.

    Attributes:
        true: its row of the table.
        case: both reports, parsed.
        in_text: labels that the predicted text states.
        in_locations: labels in the predicted LOCATIONS.
        entailed: what a judge said of the sentences; None without a judge.
    """

    true: TrueReport
    case: Case
    in_text: frozenset[str]
    in_locations: frozenset[str]
    entailed: EntailedSentences | None = None

    @property
    def label_f1(self) -> float:
        """Return the F1 of the findings in the text; 1 if there are none and none is stated."""
        if not self.true.labels and not self.in_text:
            return 1.0 if self.case.parsed and not self.case.abstained else 0.0
        return _counted(self.true.labels, self.in_text).f1


@dataclass(frozen=True)
class LabelScores:
    """Agreement on one finding.

    Attributes:
        images: that show it.
        text: counts of images, by the predicted text.
        locations: counts of images, by the predicted LOCATIONS.
    """

    images: int
    text: Counts
    locations: Counts


@dataclass(frozen=True)
class CollectionScores:
    """Agreement over a table's images.

    Attributes:
        images: that were read.
        patients: whose they are; None if the table doesn't say so.
        figures: by name.
        intervals: of 95 %, by name; over patients where they are known, else over images.
        findings: by label, those that are true or predicted of an image.
        calibration: reported findings by their stated probability.
        calibration_error: see ``calibration.py``; None if no probability is known.
        absent: figures that couldn't be computed, and why.
    """

    images: int
    patients: int | None
    figures: dict[str, float]
    intervals: dict[str, Interval]
    findings: dict[str, LabelScores]
    calibration: list[Bin]
    calibration_error: float | None
    absent: dict[str, str]

    def summary(self) -> dict[str, object]:
        """Return everything as plain numbers, for JSON."""
        return {
            "images": self.images,
            "patients": self.patients,
            "figures": {
                name: {"value": value, "interval": self.intervals.get(name)}
                for name, value in self.figures.items()
            },
            "findings": {
                label: {"images": one.images, "text": _ratios(one.text), "locations": _ratios(one.locations)}
                for label, one in self.findings.items()
            },
            "calibration": [asdict(tenth) for tenth in self.calibration],
            "calibration_error": self.calibration_error,
            "absent": self.absent,
        }


def judged(true: TrueReport, prediction: Prediction, judge: Judge | None = None) -> JudgedImage:
    """Parse an image's prediction, find what it names, and let the judge compare the reports, if there is one."""
    case = case_of(prediction)
    return JudgedImage(
        true=true,
        case=case,
        in_text=stated_findings(prose_of(case.reported)),
        in_locations=frozenset(one.finding.label for one in case.reported.locations),
        entailed=judge.compare(true.report, case.reported) if judge else None,
    )


def score_images(table: TrueTable, images: Sequence[JudgedImage]) -> CollectionScores:
    """Score the images of a table that were read: at least one."""
    labels = [label for label in BY_LABEL if any(label in _all_labels(one) for one in images)]
    in_text = [_by_label(labels, one.true.labels, one.in_text) for one in images]
    in_locations = [_by_label(labels, one.true.labels, one.in_locations) for one in images]
    absent = dict.fromkeys(_OF_TEXT if table.has_boxes else _OF_BOXES, _NO_TEXT if table.has_boxes else _NO_BOXES)
    absent |= {"radgraph_f1": _NOT_BUILT_IN, "chexbert_f1": _NOT_BUILT_IN, "green": _NOT_BUILT_IN}
    wanted: dict[str, Figure] = {
        **_label_figures("text_label", in_text),
        **_label_figures("location_label", in_locations),
        **figures([tally(one.case) for one in images]),
    }
    entailments = [one.entailed for one in images if one.entailed is not None]
    if len(entailments) == len(images):
        wanted |= _entailment_figures(entailments)
    else:
        absent |= dict.fromkeys(_ENTAILMENT, "no judge was named: --judge MODEL, at the server in EMX_SERVER")
    wanted = {name: figure for name, figure in wanted.items() if name not in absent}
    patients = patients_of([one.true for one in images])
    known = _forecasts(table, images)
    if not known:
        absent["calibration_error"] = "no probability of a reported finding is known"
    once = np.ones((1, len(images)))
    return CollectionScores(
        images=len(images),
        patients=len(set(patients)) if patients else None,
        figures={name: float(figure(once)[0]) for name, figure in wanted.items()},
        intervals=bootstrap(wanted, len(images), patients=patients),
        findings={
            label: LabelScores(
                sum(label in one.true.labels for one in images),
                sum((row[index] for row in in_text), Counts()),
                sum((row[index] for row in in_locations), Counts()),
            )
            for index, label in enumerate(labels)
        },
        calibration=bins(known),
        calibration_error=expected_calibration_error(known) if known else None,
        absent=absent,
    )


_ENTAILMENT = ("entailment_precision", "entailment_recall", "entailment_f1")


def _entailment_figures(entailed: Sequence[EntailedSentences]) -> dict[str, Figure]:
    rows = [(one.right, one.written, one.covered, one.true) for one in entailed]
    right, written, covered, true = np.array(rows, float).T

    def precision(weights: Array) -> Array:
        return ratio(weights @ right, weights @ written)

    def recall(weights: Array) -> Array:
        return ratio(weights @ covered, weights @ true)

    def f1(weights: Array) -> Array:
        one, other = precision(weights), recall(weights)
        return ratio(2 * one * other, one + other)

    return dict(zip(_ENTAILMENT, (precision, recall, f1), strict=True))


def _label_figures(name: str, rows: Sequence[Sequence[Counts]]) -> dict[str, Figure]:
    counted = np.array([[_triple(counts) for counts in row] for row in rows], float).reshape(len(rows), -1, 3)

    def micro(weights: Array) -> Array:
        return _f1(weights @ counted.sum(axis=1))

    def macro(weights: Array) -> Array:
        by_label = _f1(np.einsum("ri,ilc->rlc", weights, counted))
        return by_label.mean(axis=1) if counted.shape[1] else np.zeros(len(weights))

    return {f"{name}_f1": micro, f"{name}_macro_f1": macro}


def _f1(counts: Array) -> Array:
    right = 2 * counts[..., 0]
    return ratio(right, right + counts[..., 1] + counts[..., 2])


def _triple(counts: Counts) -> tuple[int, int, int]:
    return counts.true_positives, counts.false_positives, counts.false_negatives


def _by_label(labels: Sequence[str], true: frozenset[str], found: frozenset[str]) -> list[Counts]:
    return [_counted(true & {label}, found & {label}) for label in labels]


def _counted(true: frozenset[str], found: frozenset[str]) -> Counts:
    return Counts(len(true & found), len(found - true), len(true - found))


def _all_labels(one: JudgedImage) -> frozenset[str]:
    return one.true.labels | one.in_text | one.in_locations


def _forecasts(table: TrueTable, images: Sequence[JudgedImage]) -> list[Forecast]:
    """Return reported findings with their probabilities; right with the side where the table has boxes."""
    if table.has_boxes:
        return forecasts(one.case for one in images)
    return [
        Forecast(probability, located.finding.label in one.true.labels)
        for one in images
        for located, probability in zip(one.case.reported.locations, one.case.probabilities or (), strict=False)
    ]


def _ratios(counts: Counts) -> Mapping[str, float | int]:
    return {**asdict(counts), "precision": counts.precision, "recall": counts.recall, "f1": counts.f1}
