"""From Pillow's modes to 8 or 16 bits of grey, some rows at a time: a copy of the whole takes hundreds of MB."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from emx_shared.imaging.refusals import BadImage
from emx_shared.imaging.value_range import ValueRange, range_of
from emx_shared.imaging.windowing import SampleMap, Window, Windowing

DEEP_MODES = ("I;16", "I;16B", "I", "F")
"""Pillow's modes of more than 8 bits."""
_NUMBERS = 2**16
_STRIP = 2**20
"""Pixels that are worked on at a time."""
Values = npt.NDArray[np.floating[Any]]
ReadStrip = Callable[[int, int], tuple[Values, npt.NDArray[np.bool_] | None]]
"""Returns the values of the rows from one to another, and which of them are seen; None if all are."""


@dataclass(frozen=True)
class Greys:
    """An image in grey.

    Attributes:
        image: of mode L, or I;16 where it has windows.
        lone: whether values far from all others were left out of its range.
        windowing: how the picture is shown, if it has 16 bits.
    """

    image: Image.Image
    lone: bool = False
    windowing: Windowing | None = None

    def inverted(self) -> "Greys":
        """Return the same with black for white."""
        if self.windowing is None:
            return Greys(ImageOps.invert(self.image), self.lone)
        samples = np.asarray(self.image)
        return Greys(Image.fromarray(~samples), self.lone, self.windowing.inverted())


def grayscale(image: Image.Image, unsigned: bool = False, deep: bool = False) -> Greys:
    """Convert to grey; more than 8 bits are stretched over the range of the image's own values.

    Args:
        image: in any of Pillow's modes.
        unsigned: whether it has 32 bits, which Pillow takes for signed.
        deep: whether more than 8 bits become 16 bits instead of 8.
    """
    if image.mode in DEEP_MODES:
        step = None if image.mode == "F" else 1.0
        return stretched(
            image.size, lambda top, bottom: (_values(_rows(image, top, bottom), unsigned), None), deep, step
        )
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return Greys(_by_strips(image.size, lambda top, bottom: _on_black(_rows(image, top, bottom))))
    return Greys(image.convert("L"))


def stretched(size: tuple[int, int], read: ReadStrip, deep: bool = False, step: float | None = None) -> Greys:
    """Return an image in grey, stretched over the range of the values that are seen.

    Args:
        size: width and height.
        read: gives the values of some rows.
        deep: whether the image has 16 bits, and the values that were left out of the range, too.
        step: of which all differences between values are multiples; None if there is no such step.
    """
    low, high, present = math.inf, -math.inf, _Present()
    for top, bottom in _strips(size):
        values, seen = read(top, bottom)
        if not (np.abs(values) < 1e30).all():
            raise BadImage("The image has pixels that are not numbers, or are too large.")
        if seen is not None:
            values = values[seen]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            present.add(values)
    lowest, highest = low, high
    if (found := present.range()) and found.lone:
        low, high = found.low, found.high
    lone = found is not None and found.lone
    if deep:
        return _deep(size, read, ValueRange(lowest, highest, lone), _floored(low, high), step)
    scale = 255 / ((high - low) or 1) if high > -math.inf else 0

    def greys(top: int, bottom: int) -> Image.Image:
        values, seen = read(top, bottom)
        shown = np.clip((values - low) * scale, 0, 255) if scale else np.zeros_like(values)
        return Image.fromarray((shown if seen is None else np.where(seen, shown, 0)).astype(np.uint8))

    return Greys(_by_strips(size, greys), lone)


def _deep(size: tuple[int, int], read: ReadStrip, whole: ValueRange, shown: Window, step: float | None) -> Greys:
    """Return an image of mode I;16 with the whole range of its values, and the window that is shown."""
    to_samples = SampleMap.of(whole.low, whole.high, shown, step)

    def samples(top: int, bottom: int) -> Image.Image:
        values, seen = read(top, bottom)
        strip = to_samples.samples(values)
        return Image.fromarray(strip if seen is None else np.where(seen, strip, 0).astype(np.uint16))

    return Greys(_by_strips(size, samples, "I;16"), whole.lone, Windowing(to_samples.window(shown)))


def _floored(low: float, high: float) -> Window:
    """Return the window of a range whose greys are rounded down in the picture of 8 bits: half a grey darker."""
    window = Window.between(low, high)
    return Window(window.center + window.width / 510, window.width)


class _Present:
    """Which numbers of up to 16 bits an image has, signed or not."""

    def __init__(self) -> None:
        self._flags: npt.NDArray[np.bool_] | None = np.zeros(2 * _NUMBERS, np.bool_)

    def add(self, values: Values) -> None:
        """Note the values of some rows, rounded."""
        if self._flags is not None:
            if values.min() < -_NUMBERS or values.max() > _NUMBERS - 1:
                self._flags = None
            else:
                self._flags[np.rint(values).astype(np.int32) + _NUMBERS] = True

    def range(self) -> ValueRange | None:
        """Return the range of the values; None if there are none, or others."""
        if self._flags is None or not self._flags.any():
            return None
        return range_of(np.flatnonzero(self._flags) - _NUMBERS)


def _values(strip: Image.Image, unsigned: bool) -> Values:
    stored = np.asarray(strip)
    return (stored.view(np.uint32) if unsigned else stored).astype(np.float32)


def _on_black(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("L")


def _by_strips(size: tuple[int, int], greys: Callable[[int, int], Image.Image], mode: str = "L") -> Image.Image:
    shown = Image.new(mode, size)
    for top, bottom in _strips(size):
        shown.paste(greys(top, bottom), (0, top))
    return shown


def _rows(image: Image.Image, top: int, bottom: int) -> Image.Image:
    return image.crop((0, top, image.width, bottom))


def _strips(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    width, height = size
    rows = max(_STRIP // width, 1)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)
