"""PadChest-GR (Castro et al., NEJM AI 2025): 4,555 images of PadChest, each finding with boxes by radiologists."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emx_shared.contracts.report import Box
from emx_training.data.boxes import BoxedImage, parse_box
from emx_training.data.padchest_text import finding_of
from emx_training.data.tables import BadTable


def read_padchest_gr(table: Path) -> Iterator[BoxedImage]:
    """Yield the images of ``grounded_reports_*.json`` with the boxes of findings that the vocabulary has.

    Boxes are the first reader's (``boxes``, in fractions of the image), without those that were drawn a second
    time (``extra_boxes``). An image that shows only findings outside the vocabulary is left out: it isn't normal.

    Raises:
        BadTable: if the file can't be read, or an image lacks a field or has an invalid box.
    """
    try:
        images = json.loads(table.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise BadTable(f"{table} can't be read ({error}): give PadChest-GR's grounded_reports_….json.") from None
    if not isinstance(images, list):
        raise BadTable(f"{table} contains no list of images: give PadChest-GR's grounded_reports_….json.")
    for number, entry in enumerate(images, start=1):
        where = f"{table}, image {number}"
        try:
            image, findings = entry["ImageID"], [one for one in entry["findings"] if one["abnormal"]]
            found = tuple(box for one in findings for box in _boxes(one, where))
        except (KeyError, TypeError) as error:
            raise BadTable(f"{where}: {error} is missing or isn't in PadChest-GR's format.") from None
        if found or not findings:
            yield BoxedImage(image, found, in_fractions=True)


def _boxes(finding: dict[str, Any], where: str) -> Iterator[tuple[str, Box]]:
    known = (finding_of(label) for label in finding.get("labels") or ())
    labels = dict.fromkeys(one.label for one in known if one)
    for corners in finding.get("boxes") or ():
        box = parse_box(corners, f"{where}, boxes")
        for label in labels:
            yield label, box
