"""Pictures of 16 bits: a linear map from a file's values to samples, and the windows that show the samples."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

WHITE = 65535
"""The largest sample."""
_FINE = 512
"""Samples of a window's width below which their rounding shows: then each step of the values is a whole number of
samples."""
Samples = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Window:
    """A linear window: grey = (value - center) / width + 0.5, clipped to 0 (black) to 1 (white).

    Attributes:
        center: the value that is shown in middle grey.
        width: from the value that is black to the one that is white; positive.
    """

    center: float
    width: float

    @classmethod
    def between(cls, black: float, white: float) -> "Window":
        """Return the window whose ends are these values; where they are the same, the values are black."""
        width = (white - black) or 1.0
        return cls(black + width / 2, width)

    @property
    def black(self) -> float:
        """The highest value that is black."""
        return self.center - self.width / 2

    @property
    def white(self) -> float:
        """The lowest value that is white."""
        return self.center + self.width / 2

    def inverted(self) -> "Window":
        """Return the window of samples that are inverted (65535 minus each)."""
        return Window(WHITE - self.center, self.width)


ALL_SAMPLES = Window(WHITE / 2, WHITE)
"""Shows samples as they are: 0 is black, 65535 white."""


@dataclass(frozen=True)
class Windowing:
    """How a picture of 16 bits is shown.

    Attributes:
        shown: the window that gives the picture of 8 bits.
        further: other good windows of the file, by name.
    """

    shown: Window
    further: tuple[tuple[str, Window], ...] = ()

    def inverted(self) -> "Windowing":
        """Return the same for samples that are inverted."""
        return Windowing(self.shown.inverted(), tuple((name, one.inverted()) for name, one in self.further))


@dataclass(frozen=True)
class SampleMap:
    """A linear map from values to samples: sample = (value - low) * scale.

    Attributes:
        low: the value of sample 0.
        scale: samples for each unit of the values.
    """

    low: float
    scale: float

    @classmethod
    def of(cls, low: float, high: float, shown: Window, step: float | None) -> "SampleMap":
        """Choose the map of a picture.

        The values from ``low`` to ``high`` become 0 to 65535. If the window is so narrow that the rounding to
        whole samples would show, a step becomes a whole number of samples instead, so that nothing is rounded.
        Where that can't be either, the window alone becomes 0 to 65535 and the values beyond it are clipped.

        Args:
            low: the lowest of the values.
            high: the highest of the values.
            shown: the window of the values that gives the picture of 8 bits.
            step: of which all differences between values are multiples; None if there is no such step.
        """
        scale = WHITE / ((high - low) or 1)
        if not (math.isfinite(scale) and math.isfinite(low) and scale > 0):
            return cls(0.0, 0.0)
        if shown.width * scale >= _FINE:
            return cls(low, scale)
        whole = math.floor(scale * step + 1e-9) if step else 0
        return cls(low, whole / step) if whole and step else cls(shown.black, WHITE / shown.width)

    def samples(self, values: npt.NDArray[Any]) -> Samples:
        """Return the samples of values. Values that differ by a sample or more stay apart."""
        found = (values.astype(np.float64) - self.low) * self.scale
        rounded: Samples = np.floor(np.clip(np.nan_to_num(found), 0, WHITE) + 0.5).astype(np.uint16)
        return rounded

    def window(self, of_values: Window) -> Window:
        """Return the window of samples that shows what a window of values does."""
        if not self.scale:
            return ALL_SAMPLES
        return Window((of_values.center - self.low) * self.scale, of_values.width * self.scale)
