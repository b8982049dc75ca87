"""Tables of boxes for phase 2, from collections that have them."""

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.findings import BY_LABEL, TERMS, Laterality
from training.dataset.study import BadTable, term

VINDR_COLUMNS = ("image_id", "class_name", "rad_id", "x_min", "y_min", "x_max", "y_max")
COLUMNS = ("image", "term", "xmin", "ymin", "xmax", "ymax")
_AGREE = 0.4
"""IoU from which two readers' boxes are taken for the same finding."""
_READERS = 2
"""Readers who must have drawn a finding."""

_VINDR = {
    "Cardiomegaly": "cardiomegaly",
    "Pleural effusion": "pleural effusion",
    "Pneumothorax": "pneumothorax",
    "Consolidation": "consolidation",
    "Atelectasis": "atelectasis",
    "ILD": "interstitial pattern",
    "Pulmonary fibrosis": "pulmonary fibrosis",
    "Pleural thickening": "pleural thickening",
}
"""VinDr's classes that the vocabulary has; its Nodule/Mass doesn't say which of the two."""


@dataclass(frozen=True)
class Rectangle:
    """Pixels of the original image."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float

    @property
    def area(self) -> float:
        return max(self.xmax - self.xmin, 0) * max(self.ymax - self.ymin, 0)

    def overlap(self, other: "Rectangle") -> float:
        """Intersection over union."""
        shared = Rectangle(
            max(self.xmin, other.xmin), max(self.ymin, other.ymin),
            min(self.xmax, other.xmax), min(self.ymax, other.ymax),
        ).area  # fmt: skip
        union = self.area + other.area - shared
        return shared / union if union else 0.0


@dataclass(frozen=True)
class BoxedImage:
    """An image with the boxes that its readers agree on; without any, it is normal.

    ``found``: the vocabulary's label of each box. The side is that of the box's centre, once the width is known.
    """

    image: str
    found: tuple[tuple[str, Rectangle], ...]

    def terms(self, width: int) -> list[tuple[str, Rectangle]]:
        """Terms with sides: the patient's right is on the image's left."""
        sided = []
        for label, box in self.found:
            side: Laterality = "right" if (box.xmin + box.xmax) / 2 < width / 2 else "left"
            known = term(BY_LABEL[label], side)
            assert known in TERMS
            sided.append((known, box))
        return sided


def read_vindr(table: Path) -> Iterator[BoxedImage]:
    """VinDr-CXR's training annotations (Nguyen et al., Scientific Data 2022), three readers to an image.

    Raises BadTable with the row of a box that isn't one.
    """
    by_image: defaultdict[str, list[tuple[str, str, Rectangle]]] = defaultdict(list)
    with gzip.open(table, "rt", newline="") if table.suffix == ".gz" else table.open(newline="") as stream:
        reader = csv.DictReader(stream)
        if lacking := [name for name in VINDR_COLUMNS if name not in (reader.fieldnames or ())]:
            raise BadTable(f"{table} has no column {', '.join(lacking)}: give VinDr-CXR's annotations.")
        for number, row in enumerate(reader, start=2):
            drawn = by_image[row["image_id"]]
            if row["class_name"] in _VINDR:
                drawn.append((_VINDR[row["class_name"]], row["rad_id"], _rectangle(row, table, number)))
    for image, drawn in by_image.items():
        labels = dict.fromkeys(label for label, _, _ in drawn)
        found = [
            (label, box)
            for label in labels
            for box in _agreed([(reader, box) for name, reader, box in drawn if name == label])
        ]
        yield BoxedImage(f"{image}.png", tuple(found))


def _rectangle(row: dict[str, str], table: Path, number: int) -> Rectangle:
    try:
        box = Rectangle(*(float(row[name]) for name in VINDR_COLUMNS[3:]))
    except ValueError:
        raise BadTable(f"{table}, row {number}: x_min, y_min, x_max, y_max must be numbers.") from None
    if not box.area or box.xmin < 0 or box.ymin < 0:
        raise BadTable(f"{table}, row {number}: the box is inverted, empty or outside the image.")
    return box


def _agreed(drawn: Sequence[tuple[str, Rectangle]]) -> list[Rectangle]:
    """The mean of each group of boxes that two readers or more have drawn over each other."""
    groups: list[list[tuple[str, Rectangle]]] = []
    for reader, box in drawn:
        fitting = (group for group in groups if all(box.overlap(other) >= _AGREE for _, other in group))
        group = next(fitting, None)
        if group is None:
            groups.append([(reader, box)])
        else:
            group.append((reader, box))
    return [_mean([box for _, box in group]) for group in groups if len({r for r, _ in group}) >= _READERS]


def _mean(boxes: Sequence[Rectangle]) -> Rectangle:
    count = len(boxes)
    return Rectangle(
        sum(box.xmin for box in boxes) / count, sum(box.ymin for box in boxes) / count,
        sum(box.xmax for box in boxes) / count, sum(box.ymax for box in boxes) / count,
    )  # fmt: skip
