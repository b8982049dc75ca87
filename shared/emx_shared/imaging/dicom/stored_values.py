"""The values that are stored in samples: the only place where bits are masked and signs are extended."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emx_shared.imaging.dicom.header import Header
from emx_shared.imaging.dicom.samples import Samples


@dataclass(frozen=True)
class StoredBits:
    """Which bits of a word are the stored value (DICOM PS3.5, 8.1.1); the others are overlays, signs or nothing.

    Attributes:
        count: of the bits.
        high: the place of the highest of them.
        signed: whether that is the sign of a two's complement.
    """

    count: int
    high: int
    signed: bool

    @classmethod
    def of(cls, header: Header, samples: Samples) -> "StoredBits":
        """Return what a header says, as far as its samples can have it.

        A codestream of fewer bits than are stored has the lowest of them, its sign included.
        """
        said = header.whole("BitsStored") or 0
        count = min(said, samples.bits) if said > 0 else samples.bits
        high = header.whole("HighBit")
        if high is None:
            high = count - 1
        bits = cls(count, min(max(high, count - 1), samples.bits - 1), header.whole("PixelRepresentation") == 1)
        if bits.high == bits.count - 1 and bits._cut(samples):
            header.warnings.append(
                "The DICOM file's BitsStored or PixelRepresentation doesn't fit its pixels: all of their bits "
                "were used."
            )
            return cls(samples.bits, samples.bits - 1, bits.signed)
        return bits

    def _cut(self, samples: Samples) -> bool:
        """Tell whether these bits are too few: with all bits, neighbouring pixels differ less.

        Overlays and noise in bits that aren't stored make them differ more.
        """
        whole = samples.words.view(f"i{samples.words.itemsize}") if self.signed else samples.words
        stored = self.values(samples.words)
        if self.count == 8 * samples.words.itemsize or np.array_equal(stored, whole):
            return False
        return _roughness(whole) < _roughness(stored)

    def values(self, words: npt.NDArray[np.unsignedinteger[Any]]) -> npt.NDArray[np.integer[Any]]:
        """Return the values in words: of the same width, and signed where the values are."""
        width = 8 * words.itemsize
        typed: npt.NDArray[np.integer[Any]] = words.view(f"i{words.itemsize}") if self.signed else words
        if self.count == width:
            return typed
        values: npt.NDArray[np.integer[Any]] = np.left_shift(typed, width - 1 - self.high)
        values >>= width - self.count
        return values


def _roughness(values: npt.NDArray[np.integer[Any]]) -> int:
    """Return by how much neighbours differ, in every eighth row and column."""
    across = np.diff(values[::8].astype(np.int32), axis=1)
    down = np.diff(values[:, ::8].astype(np.int32), axis=0)
    return int(np.abs(across).sum(dtype=np.int64) + np.abs(down).sum(dtype=np.int64))
