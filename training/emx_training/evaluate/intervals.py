"""How sure the figures are: percentile bootstrap over studies (Efron, Annals of Statistics 1979)."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from emx_training.evaluate.average_precision import Array
from emx_training.evaluate.figures import Figure

Interval = tuple[float, float]

RESAMPLES = 2000
_PERCENTILES = (2.5, 97.5)
_AT_ONCE = 2**22
"""Draws that are held in memory at a time."""


def bootstrap(figures: Mapping[str, Figure], studies: int, seed: int = 0) -> dict[str, Interval]:
    """95 % intervals of the figures of so many studies, from 2,000 sets of studies drawn anew with replacement.

    The findings of one study are drawn together, as they depend on each other.
    """
    if not studies:
        return {}
    random = np.random.default_rng(seed)
    chances = np.full(studies, 1 / studies)
    at_once = max(1, min(RESAMPLES, _AT_ONCE // studies))
    resampled: defaultdict[str, list[Array]] = defaultdict(list)
    for begun in range(0, RESAMPLES, at_once):
        weights = random.multinomial(studies, chances, min(at_once, RESAMPLES - begun)).astype(float)
        for name, figure in figures.items():
            resampled[name].append(figure(weights))
    return {name: _interval(np.concatenate(values)) for name, values in resampled.items()}


def _interval(values: Array) -> Interval:
    low, high = np.percentile(values, _PERCENTILES)
    return float(low), float(high)
