"""The range of an image's values that a picture is stretched over, where its file names none."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_ENOUGH = 16
"""Values that an image needs beside a lone one, for that to be no part of it."""


@dataclass(frozen=True)
class ValueRange:
    """The lowest and the highest value that counts.

    Attributes:
        low, high: the two.
        lone: whether values far from all others were left out, which no device measures: padding that the file
            doesn't declare, burned-in letters or broken pixels.
    """

    low: float
    high: float
    lone: bool = False


def range_of(values: npt.NDArray[Any]) -> ValueRange:
    """Return the range of some values, in which each counts once.

    Left out is the lowest or the highest, or both, if it is further from the next than the rest is wide.
    """
    values = np.sort(values)
    low, high = 0, len(values) - 1
    for _ in range(2):
        if high - low <= _ENOUGH:
            break
        before, after = values[low + 1] - values[low], values[high] - values[high - 1]
        if after > values[high - 1] - values[low]:
            high -= 1
        elif before > values[high] - values[low + 1]:
            low += 1
        else:
            break
    return ValueRange(float(values[low]), float(values[high]), high - low + 1 < len(values))


LONE_VALUES_WARNING = (
    "A value far from all others was left out of the picture's range, such as padding or burned-in letters."
)
