"""Whether a picture shows anything: what is nearly one grey was decoded wrongly, or shows no patient."""

import numpy as np
import numpy.typing as npt
from PIL import Image

MIN_SPREAD = 32
"""Of 256 greys, between the darkest and the brightest hundredth of the pixels. Radiographs have 100 and more; 12
bits shown as if they were 16 have 16."""
MIN_GREYS = 24
"""Of 256, that a picture's pixels have. One that is black or white, or in steps, has lost what it showed."""
LOW_CONTRAST_WARNING = (
    "The picture has hardly any contrast, or only a few greys: the file may have been read wrongly, or shows "
    "nothing. Compare it with the original before you use this report."
)
_RARE = 1e-4
"""Share of the pixels below which a grey doesn't count."""
_SAMPLE = 2**18
"""Pixels that are looked at, at most some four times as many."""


def spread(greys: npt.NDArray[np.floating], counts: npt.NDArray[np.integer]) -> float:
    """Return by how much the greys of the brightest and the darkest hundredth of the pixels differ.

    Args:
        greys: any numbers; those beyond 0 and 255 count as these.
        counts: how many pixels have each of them.
    """
    order = np.argsort(greys, kind="stable")
    ranks = np.cumsum(counts[order])
    low, high = np.searchsorted(ranks, (ranks[-1] * 0.01, ranks[-1] * 0.99))
    dark, bright = np.clip(greys[order[[low, high]]], 0, 255)
    return float(bright - dark)


def lacks_contrast(image: Image.Image) -> bool:
    """Return whether an 8-bit grayscale image has hardly any contrast, or only a few greys."""
    step = max(int((image.width * image.height / _SAMPLE) ** 0.5), 1)
    counts = np.bincount(np.asarray(image)[::step, ::step].ravel(), minlength=256)
    few = np.count_nonzero(counts > counts.sum() * _RARE) < MIN_GREYS
    return bool(few) or spread(np.arange(256.0), counts) < MIN_SPREAD
