"""Where a label goes so that it hides nothing: plain geometry, in whole pixels, x to the right and y down."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom; right and bottom are the first pixels outside."""

Point = tuple[int, int]


def place(
    canvas: tuple[int, int],
    size: tuple[int, int],
    box: Rectangle,
    labels: Sequence[Rectangle],
    boxes: Sequence[Rectangle],
) -> Rectangle:
    """Find the best spot for a label of ``size`` (width, height) that belongs to ``box``.

    If any spot on the canvas overlaps neither ``labels`` nor ``boxes``, it is one of these, and of them the
    nearest to ``box``: above it, or else below, or else beside it. It is found for certain: pushed left and up,
    such a spot comes to rest against an edge of something in each direction, and all of these are tried. Without
    such a spot it is the one that hides least: other labels above all, then boxes, where to hide a small one whole
    is worse than part of a large one.
    """
    x, y = (side.ravel() for side in np.meshgrid(*_edges(canvas, size, box, [*labels, *boxes]), indexing="ij"))
    spots = (x, y, x + size[0], y + size[1])
    hidden = np.zeros(len(x))
    for other in labels:
        hidden += 100 * _shared(spots, other) / (size[0] * size[1])
    for other in {box, *boxes}:
        hidden += _shared(spots, other) * (1 / (size[0] * size[1]) + 1 / _area(other))
    best = np.lexsort((_detour(spots, box), np.round(hidden, 9)))[0]
    left, top = int(x[best]), int(y[best])
    return left, top, left + size[0], top + size[1]


def leader(label: Rectangle, box: Rectangle) -> tuple[Point, Point] | None:
    """Find the shortest line from a label to its box; None where they touch."""
    (from_x, to_x), (from_y, to_y) = (
        _between((label[axis], label[axis + 2]), (box[axis], box[axis + 2])) for axis in (0, 1)
    )
    return None if abs(from_x - to_x) <= 1 and abs(from_y - to_y) <= 1 else ((from_x, from_y), (to_x, to_y))


def overlap(a: Rectangle, b: Rectangle) -> bool:
    """Return whether two rectangles share a pixel."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


Values = npt.NDArray[np.float64]
Spots = tuple[Values, Values, Values, Values]


def _edges(
    canvas: tuple[int, int], size: tuple[int, int], box: Rectangle, others: Sequence[Rectangle]
) -> tuple[Values, Values]:
    """Return the left and top edges to try: aligned with the box, or touching something."""
    tried = []
    for axis in (0, 1):
        low, high, last = box[axis], box[axis + 2], max(canvas[axis] - size[axis], 0)
        wanted = {0, last, low, high - size[axis], (low + high - size[axis]) // 2}
        wanted |= {edge for other in (box, *others) for edge in (other[axis] - size[axis], other[axis + 2])}
        tried.append(np.array(sorted(edge for edge in wanted if 0 <= edge <= last), dtype=np.float64))
    return tried[0], tried[1]


def _shared(spots: Spots, other: Rectangle) -> Values:
    wide = np.minimum(spots[2], other[2]) - np.maximum(spots[0], other[0])
    high = np.minimum(spots[3], other[3]) - np.maximum(spots[1], other[1])
    shared: Values = np.clip(wide, 0, None) * np.clip(high, 0, None)
    return shared


def _area(box: Rectangle) -> int:
    return max((box[2] - box[0]) * (box[3] - box[1]), 1)


def _detour(spots: Spots, box: Rectangle) -> Values:
    """Measure how far the eye goes from the box to the label, in pixels; below and beside cost a little more."""
    left, top, right, bottom = spots
    away_x = np.maximum(np.maximum(box[0] - right, left - box[2]), 0)
    away_y = np.maximum(np.maximum(box[1] - bottom, top - box[3]), 0)
    above, below = bottom <= box[1], top >= box[3]
    slid = np.where(above | below, np.abs(left - box[0]), np.abs(top - box[1]))
    height = bottom - top
    return np.hypot(away_x, away_y) + np.where(above, 0, np.where(below, 0.25, 0.5)) * height + 0.02 * slid


def _between(a: tuple[int, int], b: tuple[int, int]) -> Point:
    """Return the ends of the gap between two intervals; where they overlap, twice the middle of the overlap."""
    if a[1] < b[0]:
        return a[1], b[0]
    if b[1] < a[0]:
        return a[0], b[1]
    middle = (max(a[0], b[0]) + min(a[1], b[1])) // 2
    return middle, middle
