"""Boxes of your own: a CSV with a row for each box."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from emx_shared.contracts.box_table import OTHER
from emx_shared.contracts.findings import FINDINGS, TERMS
from emx_shared.contracts.report import Box
from emx_training.data.boxes import BoxedImage, parse_box
from emx_training.data.tables import BadTable, open_table, require_columns

COLUMNS = ("image", "label", "xmin", "ymin", "xmax", "ymax")

_LABELS = {name.lower(): one.label for one in FINDINGS for name in (one.label, *one.synonyms)} | {
    term: finding.label for term, (finding, _) in TERMS.items()
}
"""The vocabulary's label for each label, synonym and sided term."""


def read_box_table(table: Path) -> Iterator[BoxedImage]:
    """Yield the images of a CSV with the columns image, label, xmin, ymin, xmax, ymax.

    Boxes are in pixels of the original: as stored in a DICOM file, upright in any other. A label is one of the
    finding vocabulary, a synonym, or ``other``; without a box, it says what the image shows besides. A row with an
    empty label says that there is nothing else: an image with only that row is normal, and one without it may show
    what nobody has drawn. A column ``patient`` keeps a patient's images in one split; without it, each image
    stands for a patient.

    Raises:
        BadTable: if the table can't be read, lacks a column, or has an unknown label or an invalid box.
    """
    found: defaultdict[str, list[tuple[str, Box]]] = defaultdict(list)
    unlocated: defaultdict[str, list[str]] = defaultdict(list)
    whole: set[str] = set()
    patients: dict[str, str] = {}
    try:
        with open_table(table) as stream:
            reader = csv.DictReader(stream)
            require_columns(table, reader, COLUMNS, f"it needs {', '.join(COLUMNS)}")
            for number, row in enumerate(reader, start=2):
                boxes = found[row["image"]]
                patients[row["image"]] = row.get("patient") or patients.get(row["image"], row["image"])
                if not (name := (row["label"] or "").strip().lower()):
                    whole.add(row["image"])
                    continue
                where = f"{table}, row {number}"
                label = _LABELS.get(name)
                if label is None and name != OTHER:
                    raise BadTable(f"{where}, column label: {name!r} isn't in the finding vocabulary.")
                corners = [row[corner] for corner in COLUMNS[2:]]
                if label is None or not any(corners):
                    unlocated[row["image"]].append(label or OTHER)
                else:
                    boxes.append((label, parse_box(corners, where)))
    except (OSError, UnicodeDecodeError) as error:
        raise BadTable(f"{table} can't be read ({error}).") from None
    for image, boxes in found.items():
        besides = unlocated[image] if image in whole else [*unlocated[image], OTHER]
        yield BoxedImage(image, patients[image], tuple(boxes), tuple(dict.fromkeys(besides)))
