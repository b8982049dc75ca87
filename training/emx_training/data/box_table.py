"""Boxes of your own: a CSV with a row for each box."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

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
    finding vocabulary or a synonym; an image whose only label is empty is normal.

    Raises:
        BadTable: if the table can't be read, lacks a column, or has an unknown label or an invalid box.
    """
    found: defaultdict[str, list[tuple[str, Box]]] = defaultdict(list)
    try:
        with open_table(table) as stream:
            reader = csv.DictReader(stream)
            require_columns(table, reader, COLUMNS, f"it needs {', '.join(COLUMNS)}")
            for number, row in enumerate(reader, start=2):
                boxes = found[row["image"]]
                if not (label := (row["label"] or "").strip().lower()):
                    continue
                where = f"{table}, row {number}"
                if label not in _LABELS:
                    raise BadTable(f"{where}, column label: {label!r} isn't in the finding vocabulary.")
                boxes.append((_LABELS[label], parse_box([row[name] for name in COLUMNS[2:]], where)))
    except (OSError, UnicodeDecodeError) as error:
        raise BadTable(f"{table} can't be read ({error}).") from None
    for image, boxes in found.items():
        yield BoxedImage(image, tuple(boxes))
