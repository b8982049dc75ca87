"""PadChest-GR (Castro et al., NEJM AI 2025): 4,555 images of PadChest, each finding with boxes by radiologists."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emx_shared.contracts.box_table import OTHER
from emx_shared.contracts.report import Box
from emx_training.data.boxes import BoxedImage, parse_box
from emx_training.data.padchest_text import finding_of
from emx_training.data.tables import BadTable, open_table, require_columns

PATIENT_COLUMNS = ("ImageID", "PatientID")


def read_padchest_gr(table: Path, patients: Path) -> Iterator[BoxedImage]:
    """Yield the images of ``grounded_reports_*.json`` with the boxes of findings that the vocabulary has.

    Boxes are the first reader's (``boxes``, in fractions of the image), without those that were drawn a second
    time (``extra_boxes``). A report is taken to name all that a radiologist saw, so an image is normal if it has
    sentences and none of them is abnormal. What a report names without a box, or the vocabulary lacks, is neither
    reported nor denied.

    Args:
        table: the reports. They don't name patients.
        patients: PadChest's label table, which does: whoever is a test patient in phase 1 is one here, too.

    Raises:
        BadTable: if a file can't be read, or an image lacks a field, has an invalid box, or has no patient.
    """
    try:
        images = json.loads(table.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise BadTable(f"{table} can't be read ({error}): give PadChest-GR's grounded_reports_….json.") from None
    if not isinstance(images, list):
        raise BadTable(f"{table} contains no list of images: give PadChest-GR's grounded_reports_….json.")
    known = _patients(patients)
    for number, entry in enumerate(images, start=1):
        where = f"{table}, image {number}"
        try:
            image, sentences = entry["ImageID"], entry["findings"]
            abnormal = [one for one in sentences if one["abnormal"]]
            found = tuple(box for one in abnormal for box in _boxes(one, where))
            unlocated = dict.fromkeys(label for one in abnormal for label in _unlocated(one))
        except (KeyError, TypeError) as error:
            raise BadTable(f"{where}: {error} is missing or isn't in PadChest-GR's format.") from None
        if image not in known:
            raise BadTable(f"{where}: {image} isn't in {patients}: give PadChest's whole label table.")
        yield BoxedImage(
            image, known[image], found, tuple(unlocated) if sentences else (OTHER,), in_fractions=True
        )


def _patients(table: Path) -> dict[str, str]:
    with open_table(table) as stream:
        reader = csv.DictReader(stream)
        require_columns(table, reader, PATIENT_COLUMNS, "give PadChest's label table")
        return {row["ImageID"]: row["PatientID"] for row in reader}


def _labels(finding: dict[str, Any]) -> list[str]:
    """Return the vocabulary's labels for a finding; ``OTHER`` for what it lacks."""
    named: Sequence[str] = finding.get("labels") or [OTHER]
    known = (finding_of(label) for label in named)
    return list(dict.fromkeys(one.label if one else OTHER for one in known))


def _unlocated(finding: dict[str, Any]) -> list[str]:
    return [label for label in _labels(finding) if label == OTHER or not finding.get("boxes")]


def _boxes(finding: dict[str, Any], where: str) -> Iterator[tuple[str, Box]]:
    for corners in finding.get("boxes") or ():
        box = parse_box(corners, f"{where}, boxes")
        for label in _labels(finding):
            if label != OTHER:
                yield label, box
