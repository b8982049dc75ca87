"""How often each stored value occurs: all that the way from values to greys needs to know of an image."""

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Grey = TypeVar("Grey", np.uint8, np.uint16)
_ROWS_AT_A_TIME = 256
"""Of which wide integers are made; of the whole image they would be its largest copy."""


class Histogram:
    """The stored values from the lowest to the highest, and how often each occurs.

    Attributes:
        values: all numbers from the lowest to the highest value.
        counts: how many pixels have each of them, padding left out unless there is nothing else.
        padding: whether a value means that no X-ray made the pixel.
        padded: whether a pixel has such a value.
    """

    def __init__(self, stored: npt.NDArray[np.integer[Any]], padding: npt.NDArray[np.integer[Any]]) -> None:
        """Count.

        Args:
            stored: the image.
            padding: values of pixels that no X-ray made (PixelPaddingValue, PS3.3 C.7.5.1.1.2).
        """
        low, high = int(stored.min()), int(stored.max())
        self.values = np.arange(low, high + 1)
        counts = np.zeros(len(self.values), np.int64)
        for rows in _strips(stored):
            counts += np.bincount((rows.astype(np.int32) - low).ravel(), minlength=len(counts))
        self.padding = np.isin(self.values, padding)
        if not counts[~self.padding].any():
            self.padding[:] = False
        self.padded = bool(counts[self.padding].any())
        self.counts: Counts = np.where(self.padding, 0, counts)

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Tell for each value whether a pixel has it."""
        return self.counts > 0

    def drawn(self, stored: npt.NDArray[np.integer[Any]], greys: npt.NDArray[Grey]) -> npt.NDArray[Grey]:
        """Return the image with the grey of each value, of 8 or 16 bits."""
        image = np.empty(stored.shape, greys.dtype)
        low, top = int(self.values[0]), 0
        for rows in _strips(stored):
            image[top : top + len(rows)] = greys[rows.astype(np.int32) - low]
            top += len(rows)
        return image


def _strips(stored: npt.NDArray[np.integer[Any]]) -> Iterator[npt.NDArray[np.integer[Any]]]:
    for top in range(0, len(stored), _ROWS_AT_A_TIME):
        yield stored[top : top + _ROWS_AT_A_TIME]
