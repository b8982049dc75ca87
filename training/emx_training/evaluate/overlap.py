"""How far boxes cover each other, and which boxes of two sets belong together."""

from collections.abc import Sequence
from dataclasses import dataclass

from emx_shared.contracts.report import Box
from emx_shared.grammar import LocBox

MATCHING_IOU = 0.5
"""From this IoU on, a box of the right finding and side counts as a match."""


@dataclass(frozen=True)
class Pair:
    """A true and a predicted box, by their indices in the sequences that were paired."""

    truth: int
    predicted: int
    iou: float


def intersection_over_union(one: LocBox | Box, other: LocBox | Box) -> float:
    """Return the IoU of two boxes in the same unit, 0 to 1."""
    height = min(one.ymax, other.ymax) - max(one.ymin, other.ymin)
    width = min(one.xmax, other.xmax) - max(one.xmin, other.xmin)
    shared = max(height, 0) * max(width, 0)
    return shared / (_area(one) + _area(other) - shared)


def pair(truth: Sequence[LocBox], predicted: Sequence[LocBox]) -> list[Pair]:
    """Pair boxes one to one, the pair of the highest IoU first."""
    candidates = sorted(
        (
            Pair(row, column, intersection_over_union(true, guess))
            for row, true in enumerate(truth)
            for column, guess in enumerate(predicted)
        ),
        key=lambda candidate: -candidate.iou,
    )
    rows: set[int] = set()
    columns: set[int] = set()
    paired = []
    for candidate in candidates:
        if candidate.truth not in rows and candidate.predicted not in columns:
            rows.add(candidate.truth)
            columns.add(candidate.predicted)
            paired.append(candidate)
    return paired


def _area(box: LocBox | Box) -> float:
    return (box.ymax - box.ymin) * (box.xmax - box.xmin)
