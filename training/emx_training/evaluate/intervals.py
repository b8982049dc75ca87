"""How sure the figures are: percentile bootstrap over images (Efron, Annals of Statistics 1979)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from emx_training.evaluate.average_precision import Array
from emx_training.evaluate.figures import Figure

Interval = tuple[float, float]
"""Lower and upper end."""

RESAMPLES = 2000
_PERCENTILES = (2.5, 97.5)
_MAX_DRAWS = 2**22
"""Draws in memory at a time."""


def bootstrap(
    figures: Mapping[str, Figure], images: int, seed: int = 0, patients: Sequence[str] | None = None
) -> dict[str, Interval]:
    """Return 95 % intervals from 2,000 resamples of the images, drawn with replacement.

    The findings of one image are drawn together, since they depend on each other, and so are a patient's images.

    Args:
        figures: by name.
        images: how many the figures are of.
        seed: of the resamples.
        patients: whose each image is; None if every image is another patient's.

    Returns:
        An interval for each figure; none if there are no images.
    """
    if not images:
        return {}
    random = np.random.default_rng(seed)
    owner = np.unique(patients, return_inverse=True)[1] if patients else np.arange(images)
    owners = int(owner.max()) + 1
    chances = np.full(owners, 1 / owners)
    at_once = max(1, min(RESAMPLES, _MAX_DRAWS // images))
    resampled: defaultdict[str, list[Array]] = defaultdict(list)
    for start in range(0, RESAMPLES, at_once):
        drawn = random.multinomial(owners, chances, min(at_once, RESAMPLES - start))
        weights = drawn[:, owner].astype(float)
        for name, figure in figures.items():
            resampled[name].append(figure(weights))
    return {name: _interval(np.concatenate(values)) for name, values in resampled.items()}


def _interval(values: Array) -> Interval:
    low, high = np.percentile(values, _PERCENTILES)
    return float(low), float(high)
