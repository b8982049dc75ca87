"""From Pillow's modes to 8 bits of grey, some rows at a time: a copy of the whole takes hundreds of megabytes."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from emx_shared.imaging.refusals import BadImage

DEEP_MODES = ("I;16", "I;16B", "I", "F")
"""Pillow's modes of more than 8 bits."""
_STRIP = 2**20
"""Pixels that are worked on at a time."""
Values = npt.NDArray[np.floating[Any]]
ReadStrip = Callable[[int, int], tuple[Values, npt.NDArray[np.bool_] | None]]
"""Returns the values of the rows from one to another, and which of them are seen; None if all are."""


def grayscale(image: Image.Image, unsigned: bool = False) -> Image.Image:
    """Convert to mode L; more than 8 bits are stretched from the image's own minimum to its maximum.

    Args:
        image: in any of Pillow's modes.
        unsigned: whether it has 32 bits, which Pillow takes for signed.
    """
    if image.mode in DEEP_MODES:
        return stretched(image.size, lambda top, bottom: (_values(_rows(image, top, bottom), unsigned), None))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _by_strips(image.size, lambda top, bottom: _on_black(_rows(image, top, bottom)))
    return image.convert("L")


def stretched(size: tuple[int, int], read: ReadStrip) -> Image.Image:
    """Return an image of mode L, stretched from the lowest to the highest value that is seen.

    Args:
        size: width and height.
        read: gives the values of some rows.
    """
    low, high = math.inf, -math.inf
    for top, bottom in _strips(size):
        values, seen = read(top, bottom)
        if not (np.abs(values) < 1e30).all():
            raise BadImage("The image has pixels that are not numbers, or are too large.")
        if seen is not None:
            values = values[seen]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    scale = 255 / ((high - low) or 1) if high > -math.inf else 0

    def greys(top: int, bottom: int) -> Image.Image:
        values, seen = read(top, bottom)
        shown = np.clip((values - low) * scale, 0, 255) if scale else np.zeros_like(values)
        return Image.fromarray((shown if seen is None else np.where(seen, shown, 0)).astype(np.uint8))

    return _by_strips(size, greys)


def _values(strip: Image.Image, unsigned: bool) -> Values:
    stored = np.asarray(strip)
    return (stored.view(np.uint32) if unsigned else stored).astype(np.float32)


def _on_black(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("L")


def _by_strips(size: tuple[int, int], greys: Callable[[int, int], Image.Image]) -> Image.Image:
    shown = Image.new("L", size)
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
