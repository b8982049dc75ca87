"""The headline figures, each as a function of how often every image counts.

For the figure itself, every image counts once; for an interval, as often as it was drawn (``intervals.py``).

micro_f1, macro_f1: of findings with their sides, not their boxes; over all findings, and as mean of the terms.
mean_iou: over paired findings; 0 if there are no pairs.
match_accuracy: share of the true findings that were reported with their side and an IoU of at least 0.5.
map50: see ``average_precision.py``.
exact_findings: share of the images whose report has all the right findings and sides, and no others.
token_accuracy, token_accuracy_words, token_accuracy_locations, token_accuracy_locations_near: see
``teacher_forcing.py``; left out if no image has the counts.
bleu, rouge_l: see ``text_metrics.py``.
parse_rate: share of the predictions that follow the report grammar; the others count as empty.
flagged_rate: share of the images that the model declined to read; they too count as empty.
"""

from collections.abc import Callable, Sequence

import numpy as np

from emx_training.evaluate.average_precision import Array, Detection, mean_average_precision, ratio
from emx_training.evaluate.overlap import MATCHING_IOU
from emx_training.evaluate.tally import Tally
from emx_training.evaluate.text_metrics import corpus_bleu

Figure = Callable[[Array], Array]
"""Takes weights, (resamples, images), and returns a value for each resample; 0 where the figure is undefined."""


def figures(tallies: Sequence[Tally]) -> dict[str, Figure]:
    """Return the figures of these images, by name, in the order in which they are printed."""
    columns = np.array([_columns(one) for one in tallies], float).reshape(len(tallies), 8)
    iou, pairs, matches, truths, exact, rouge, parsed, flagged = columns.T
    once = np.ones(len(tallies))
    return {
        **_finding_figures(tallies),
        "mean_iou": _share(iou, pairs),
        "match_accuracy": _share(matches, truths),
        "map50": _map50(tallies),
        "exact_findings": _share(exact, once),
        **_token_figures(tallies),
        "bleu": _bleu(tallies),
        "rouge_l": _share(rouge, once),
        "parse_rate": _share(parsed, once),
        "flagged_rate": _share(flagged, once),
    }


def _columns(one: Tally) -> tuple[float, ...]:
    overlaps = [iou for values in one.ious.values() for iou in values]
    matches = sum(iou >= MATCHING_IOU for iou in overlaps)
    truths = sum(count.true_positives + count.false_negatives for count in one.counts.values())
    return (
        sum(overlaps),
        len(overlaps),
        matches,
        truths,
        one.exact,
        one.text.rouge_l,
        one.parsed,
        one.flagged,
    )


def _share(part: Array, whole: Array) -> Figure:
    """Return the figure that is one sum over images divided by another."""
    return lambda weights: ratio(weights @ part, weights @ whole)


def _finding_figures(tallies: Sequence[Tally]) -> dict[str, Figure]:
    terms = sorted({term for one in tallies for term in one.counts})
    counted = np.array([[_counts(one, term) for term in terms] for one in tallies], float)
    counted = counted.reshape(len(tallies), len(terms), 3)

    def micro(weights: Array) -> Array:
        return _f1(weights @ counted.sum(axis=1))

    def macro(weights: Array) -> Array:
        by_term = _f1(np.einsum("rs,stc->rtc", weights, counted))
        return by_term.mean(axis=1) if terms else np.zeros(len(weights))

    return {"micro_f1": micro, "macro_f1": macro}


def _counts(one: Tally, term: str) -> tuple[int, int, int]:
    found = one.counts.get(term)
    return (found.true_positives, found.false_positives, found.false_negatives) if found else (0, 0, 0)


def _map50(tallies: Sequence[Tally]) -> Figure:
    terms = {term for one in tallies for term in one.counts}
    found: dict[str, Sequence[Sequence[Detection]]] = {
        term: [one.detections.get(term, []) for one in tallies] for term in terms
    }
    truths = {term: true_boxes(tallies, term) for term in terms}
    return lambda weights: mean_average_precision(found, truths, weights)


def true_boxes(tallies: Sequence[Tally], term: str) -> Array:
    """Return how often each image's truth has a term, (images,)."""
    counts = [_counts(one, term) for one in tallies]
    return np.array([right + missed for right, _, missed in counts], float)


def _token_figures(tallies: Sequence[Tally]) -> dict[str, Figure]:
    if all(one.tokens is None for one in tallies):
        return {}
    fields = ("words", "right_words", "locations", "right_locations", "near_locations")
    rows = [[getattr(one.tokens, field, 0) for field in fields] for one in tallies]
    words, right_words, locations, right_locations, near = np.array(rows, float).T
    return {
        "token_accuracy": _share(right_words + right_locations, words + locations),
        "token_accuracy_words": _share(right_words, words),
        "token_accuracy_locations": _share(right_locations, locations),
        "token_accuracy_locations_near": _share(near, locations),
    }


def _bleu(tallies: Sequence[Tally]) -> Figure:
    ngrams = np.array([one.text.ngrams for one in tallies], float).reshape(len(tallies), 10)
    return lambda weights: np.array([corpus_bleu(row) for row in weights @ ngrams])


def _f1(counts: Array) -> Array:
    """Return F1 from true positives, false positives and false negatives, which are the last axis."""
    right = 2 * counts[..., 0]
    return ratio(right, right + counts[..., 1] + counts[..., 2])
