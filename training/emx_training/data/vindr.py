"""VinDr-CXR (Nguyen et al., Scientific Data 2022): 15,000 images, each with the boxes of three readers."""

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from emx_training.data.boxes import BoxedImage, Rectangle, rectangle
from emx_training.data.source_study import BadTable

VINDR_COLUMNS = ("image_id", "class_name", "rad_id", "x_min", "y_min", "x_max", "y_max")
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
                corners = [row[name] for name in VINDR_COLUMNS[3:]]
                box = rectangle(corners, f"{table}, row {number}")
                drawn.append((_VINDR[row["class_name"]], row["rad_id"], box))
    for image, drawn in by_image.items():
        labels = dict.fromkeys(label for label, _, _ in drawn)
        found = [
            (label, box)
            for label in labels
            for box in _agreed([(reader, box) for name, reader, box in drawn if name == label])
        ]
        yield BoxedImage(f"{image}.png", tuple(found))


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
