"""The image plane: the chest's coordinates at each pixel, soft outlines and lines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Field = NDArray[np.float32]
"""A value for each pixel, (size, size)."""

Point = tuple[float, float]
Points = Sequence[Point] | NDArray[np.floating[Any]]
"""In chest coordinates, (n, 2)."""

Stroke = tuple[Points, float, int]
"""Points, width as a fraction of the image, and value."""

_FINER = 2
"""Factor of the finer raster on which lines are drawn before they are averaged."""


class Canvas:
    """Coordinates of one chest on one image.

    Attributes:
        size: pixels along each side of the image.
        x, y: chest coordinates of each pixel, in fractions of the image at scale 1: the midline is x = 0, the
            patient's left at positive x, and y points down, 0.5 at the centre.
    """

    def __init__(self, size: int, turn: float, scale: float, shift: Point) -> None:
        """Place a chest on an image.

        Args:
            size: pixels along each side of the image.
            turn: of the chest in the image plane, in radians.
            scale: of the chest; at 1 its coordinates are fractions of the image.
            shift: of the chest's centre, in fractions of the image.
        """
        self.size, self._scale, self._shift = size, scale, shift
        self._cos, self._sin = float(np.cos(turn)), float(np.sin(turn))
        at = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
        u, v = (at - np.float32(shift[0])) / np.float32(scale), (at - np.float32(shift[1])) / np.float32(scale)
        self.x = (self._cos * u[None, :] + self._sin * v[:, None]).astype(np.float32)
        self.y = (self._cos * v[:, None] - self._sin * u[None, :] + 0.5).astype(np.float32)

    def inside(self, signed: Field, edge: float = 0.004) -> Field:
        """Return a soft indicator, 0 to 1, from a signed distance in fractions of the image (positive inside)."""
        return _ramp(signed / np.float32(edge) * np.float32(0.25) + np.float32(0.5))

    def ellipse(self, centre: Point, half: Point, turn: float = 0.0) -> Field:
        """Return the normalised radius: 0 at the centre, 1 on the outline."""
        dx, dy = self.x - np.float32(centre[0]), self.y - np.float32(centre[1])
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        along, across = cos * dx + sin * dy, cos * dy - sin * dx
        return np.sqrt(np.square(along / np.float32(half[0])) + np.square(across / np.float32(half[1])))

    def texture(self, cells: NDArray[Any]) -> Field:
        """Return smooth noise: the values of a coarse grid, interpolated over the image."""
        picture = Image.fromarray(np.asarray(cells, np.float32))
        return np.asarray(picture.resize((self.size, self.size), Image.Resampling.BICUBIC))

    def strokes(self, lines: Sequence[Stroke]) -> Field:
        """Draw lines as (points, width, value 0 to 255) in chest coordinates, later ones on top; return 0 to 1."""
        picture = Image.new("L", (self.size * _FINER, self.size * _FINER))
        draw = ImageDraw.Draw(picture)
        points = self._pixels([points for points, _, _ in lines])
        for (_, width, value), at in zip(lines, points, strict=True):
            draw.line(at, fill=value, width=max(1, round(width * self._scale * picture.width)))
        return _averaged(picture)

    def areas(self, shapes: Sequence[tuple[Points, int]]) -> Field:
        """Draw filled polygons as (points, value 0 to 255), later ones on top; return 0 to 1."""
        picture = Image.new("L", (self.size * _FINER, self.size * _FINER))
        draw = ImageDraw.Draw(picture)
        points = self._pixels([points for points, _ in shapes])
        for (_, value), at in zip(shapes, points, strict=True):
            draw.polygon(at, fill=value)
        return _averaged(picture)

    def _pixels(self, parts: Sequence[Points]) -> list[list[float]]:
        """Return each part's points on the fine raster, in the order x, y, x, y."""
        arrays = [np.asarray(part, np.float64) for part in parts]
        x, y = np.concatenate(arrays).T
        y = y - 0.5
        u, v = self._cos * x - self._sin * y, self._sin * x + self._cos * y
        at = np.stack([u * self._scale + 0.5 + self._shift[0], v * self._scale + 0.5 + self._shift[1]], axis=1)
        flat: list[float] = (at.ravel() * (self.size * _FINER)).tolist()
        ends = np.cumsum([2 * len(part) for part in arrays])
        return [flat[end - 2 * len(part) : end] for part, end in zip(arrays, ends, strict=True)]


def _averaged(picture: Image.Image) -> Field:
    return np.asarray(picture.reduce(_FINER), np.float32) * np.float32(1 / 255)


def _ramp(t: Field) -> Field:
    """Return the smoothstep of t: 0 below 0, 1 above 1, level at both ends."""
    t = np.clip(t, 0, 1)
    return t * t * (np.float32(3) - np.float32(2) * t)
