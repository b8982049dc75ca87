"""How sure the scores are: percentile bootstrap over studies (Efron, Annals of Statistics 1979)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.scoring import MATCHING_IOU, Tally

Interval = tuple[float, float]

_RESAMPLES = 2000
_PERCENTILES = (2.5, 97.5)
Array = NDArray[np.floating[Any]]


def bootstrap(tallies: Sequence[Tally], seed: int = 0) -> dict[str, Interval]:
    """95 % intervals of the scores of the whole, from studies drawn anew with replacement.

    The findings of one study are drawn together, as they depend on each other.
    """
    if not tallies:
        return {}
    terms = sorted({term for one in tallies for term in one.counts})
    wholes = np.array([_row(one) for one in tallies], np.float64)
    by_term = np.array([[_counts(one, term) for term in terms] for one in tallies], np.float64)
    studies = len(tallies)
    drawn = np.random.default_rng(seed).multinomial(studies, np.full(studies, 1 / studies), _RESAMPLES)
    iou, pairs, matches, parsed, exact, flagged = (drawn @ wholes).T
    counts = np.einsum("rs,stc->rtc", drawn, by_term.reshape(studies, len(terms), 3))
    micro = counts.sum(axis=1)
    resampled = {
        "micro_f1": _f1(micro),
        "macro_f1": _f1(counts).mean(axis=1) if terms else np.zeros(_RESAMPLES),
        "mean_iou": _ratio(iou, pairs),
        "match_accuracy": _ratio(matches, micro[:, 0] + micro[:, 2]),
        "exact_findings": exact / studies,
        "parse_rate": parsed / studies,
        "flagged_rate": flagged / studies,
    }
    return {name: _interval(values) for name, values in resampled.items()}


def _row(one: Tally) -> tuple[float, ...]:
    overlaps = [iou for values in one.ious.values() for iou in values]
    matches = sum(iou >= MATCHING_IOU for iou in overlaps)
    return sum(overlaps), len(overlaps), matches, one.parsed, one.exact, one.flagged


def _counts(one: Tally, term: str) -> tuple[int, int, int]:
    found = one.counts.get(term)
    return (found.true_positives, found.false_positives, found.false_negatives) if found else (0, 0, 0)


def _f1(counts: Array) -> Array:
    """Over the last axis: true positives, false positives, false negatives."""
    right = 2 * counts[..., 0]
    return _ratio(right, right + counts[..., 1] + counts[..., 2])


def _ratio(part: Array, whole: Array) -> Array:
    """0 where a ratio has no base."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)


def _interval(values: Array) -> Interval:
    low, high = np.percentile(values, _PERCENTILES)
    return float(low), float(high)
