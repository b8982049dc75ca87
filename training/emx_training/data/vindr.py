"""VinDr-CXR (Nguyen et al., Scientific Data 2022): 15,000 images, each with the boxes of three readers."""

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from emx_shared.contracts.box_table import OTHER
from emx_shared.contracts.findings import FINDINGS
from emx_shared.contracts.report import Box
from emx_training.data.boxes import BoxedImage, parse_box
from emx_training.data.tables import open_table, require_columns
from emx_training.evaluate.overlap import intersection_over_union

VINDR_COLUMNS = ("image_id", "class_name", "rad_id", "x_min", "y_min", "x_max", "y_max")
_AGREEING_IOU = 0.4
"""IoU from which two readers' boxes count as the same finding."""
_MIN_READERS = 2
"""Readers who must have drawn a finding."""

_NO_FINDING = "no finding"
_LABELS = {name.lower(): finding.label for finding in FINDINGS for name in finding.vindr}


def read_vindr(table: Path) -> Iterator[BoxedImage]:
    """Yield the images of VinDr-CXR's training annotations, with the boxes that two readers or more agree on.

    An image is normal if all its readers say so. Whatever else a reader has drawn is neither reported nor denied:
    a finding without a box that two agree on, and *Other lesion* and other classes outside the vocabulary. Files
    are published as ``.dicom``; here they are named as PNGs, for whoever has converted them. No patients are
    published: each image stands for one.

    Raises:
        BadTable: if the table lacks a column or has an invalid box.
    """
    by_image: defaultdict[str, defaultdict[str, list[tuple[str, Box]]]] = defaultdict(lambda: defaultdict(list))
    with open_table(table) as stream:
        reader = csv.DictReader(stream)
        require_columns(table, reader, VINDR_COLUMNS, "give VinDr-CXR's annotations")
        for number, row in enumerate(reader, start=2):
            drawn = by_image[row["image_id"]]
            if (name := row["class_name"].strip().lower()) != _NO_FINDING:
                box = parse_box([row[corner] for corner in VINDR_COLUMNS[3:]], f"{table}, row {number}")
                drawn[_LABELS.get(name, OTHER)].append((row["rad_id"], box))
    for image, drawn in by_image.items():
        agreed = {label: _agreed(boxes) for label, boxes in drawn.items() if label != OTHER}
        found = tuple((label, box) for label, boxes in agreed.items() for box in boxes)
        unlocated = tuple(label for label in drawn if not agreed.get(label))
        yield BoxedImage(f"{image}.png", image, found, unlocated)


def _agreed(drawn: Sequence[tuple[str, Box]]) -> list[Box]:
    """Return the mean of each group of overlapping boxes that at least ``_MIN_READERS`` readers have drawn."""
    groups: list[list[tuple[str, Box]]] = []
    for reader, box in drawn:
        fitting = (
            group
            for group in groups
            if all(intersection_over_union(box, other) >= _AGREEING_IOU for _, other in group)
        )
        group = next(fitting, None)
        if group is None:
            groups.append([(reader, box)])
        else:
            group.append((reader, box))
    return [_mean([box for _, box in group]) for group in groups if len({r for r, _ in group}) >= _MIN_READERS]


def _mean(boxes: Sequence[Box]) -> Box:
    count = len(boxes)
    return Box(
        xmin=sum(box.xmin for box in boxes) / count, ymin=sum(box.ymin for box in boxes) / count,
        xmax=sum(box.xmax for box in boxes) / count, ymax=sum(box.ymax for box in boxes) / count,
    )  # fmt: skip
