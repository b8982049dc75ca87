"""Modality and VOI look-up tables (DICOM PS3.3, C.11.1.1 and C.11.2.1.1), as files have them."""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

Values = npt.NDArray[np.floating[Any]]


class LookupTable:
    """A table of a sequence's item.

    Attributes:
        entries: what values become.
        bits: of the entries, as the table's descriptor says.
    """

    def __init__(self, item: Dataset, little: bool) -> None:
        """Read the table. Raises whatever pydicom and numpy raise for one that is damaged or empty."""
        count, self._first, self.bits = (int(value) & 0xFFFF for value in item.LUTDescriptor)
        self.entries = _entries(item.LUTData, count or 2**16, self.bits, little)
        if not len(self.entries):
            raise ValueError("a look-up table without entries")

    def look_up(self, values: Values) -> Values:
        """Look values up; those before the table's first and after its last become its first and last entries.

        The first value mapped is written as a signed or unsigned number, after PixelRepresentation or not: it is
        whichever of the two has more of the values in the table.
        """
        first = max((self._first, self._first - 2**16), key=lambda one: self._covered(one, values))
        found: Values = self.entries[np.clip(values - first, 0, len(self.entries) - 1).astype(np.int64)]
        return found

    def _covered(self, first: int, values: Values) -> int:
        return int(np.count_nonzero((values >= first) & (values < first + len(self.entries))))


def _entries(data: Any, count: int, bits: int, little: bool) -> Values:
    """Return unsigned entries, written as words or, of 8 bits, two to a word."""
    if not isinstance(data, bytes):
        data = (np.atleast_1d(data).astype(np.int64) & 0xFFFF).astype("<u2" if little else ">u2").tobytes()
    if bits <= 8 and len(data) < 2 * count:
        if not little:
            data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
        return np.frombuffer(data, "u1")[:count].astype(np.float64)
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little else ">u2")
    return words[:count].astype(np.float64)
