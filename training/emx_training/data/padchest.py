"""PadChest (Bustos et al., Medical Image Analysis 2020): 160,861 images with coded labels.

Its reports are Spanish, stemmed and without boxes, so the English targets are written from the codes. Only frontal
views that a physician labelled are used; a network labelled the others.
"""

import ast
import csv
import re
from collections.abc import Iterator
from pathlib import Path

from emx_shared.contracts.findings import FINDINGS, Finding, Laterality
from emx_training.data.phantom_reports import HEART_NORMAL, LUNGS_CLEAR, NOTHING_FOUND
from emx_training.data.source_image import SourceImage, prose, term
from emx_training.data.tables import BadTable, open_table, require_columns

COLUMNS = ("ImageID", "ImageDir", "PatientID", "Projection", "MethodLabel", "LabelsLocalizationsBySentence")
FRONTAL = ("PA", "AP", "AP_horizontal")

_FINDING: dict[str, Finding] = {label: finding for finding in FINDINGS for label in finding.padchest}
_NO_FINDING = {"normal", "unchanged", "suboptimal study", ""}
_NAN = re.compile(r"(?<![^\[ ])nan(?![^\], ])")
_BOTH: tuple[Laterality, ...] = ("right", "left")


def read_padchest(table: Path) -> Iterator[SourceImage]:
    """Yield the images of the label table that can be trained on.

    Raises:
        BadTable: if the table can't be read, lacks a column, or has an invalid list of labels.
    """
    with open_table(table) as stream:
        reader = csv.DictReader(stream)
        require_columns(table, reader, COLUMNS, "give PadChest's label table")
        for number, row in enumerate(reader, start=2):
            if row["Projection"] not in FRONTAL or row["MethodLabel"] != "Physician":
                continue
            sentences = _coded(row["LabelsLocalizationsBySentence"], table, number)
            if not any("exclude" in sentence for sentence in sentences) and (image := _image(row, sentences)):
                yield image


def finding_of(label: str) -> Finding | None:
    """Return the vocabulary's finding for a label of PadChest, or None if the vocabulary hasn't got it."""
    return _FINDING.get(label)


def _coded(text: str, table: Path, number: int) -> list[list[str]]:
    """Parse labels and places (``loc …``), sentence by sentence. The table's ``nan`` is a sentence without any."""
    try:
        sentences = ast.literal_eval(_NAN.sub("[]", text) or "[]")
        return [[str(code).strip() for code in sentence] for sentence in sentences]
    except (ValueError, SyntaxError, TypeError):
        raise BadTable(f"{table}, row {number}, column LabelsLocalizationsBySentence: not a list.") from None


def _image(row: dict[str, str], sentences: list[list[str]]) -> SourceImage | None:
    """Return the image of a row, or None if nothing is known: one that is merely "unchanged" may show anything."""
    described: list[str] = []
    concluded: list[str] = []
    terms: dict[str, None] = {}
    for sentence in sentences:
        places = [code.removeprefix("loc ") for code in sentence if code.startswith("loc ")]
        for label in sentence:
            if label.startswith("loc ") or label in _NO_FINDING:
                continue
            described.append(f"There is {', '.join([label, *places])}.")
            finding = finding_of(label)
            if finding is None:
                continue
            for side in _sides(finding, places):
                concluded.append(f"{side} {finding.label}.".lstrip().capitalize() if side else _alone(finding))
                if known := term(finding, side):
                    terms[known] = None
    if not described:
        if not any("normal" in sentence for sentence in sentences):
            return None
        described, concluded = [HEART_NORMAL, LUNGS_CLEAR], [NOTHING_FOUND]
    return SourceImage(
        id=row["ImageID"].removesuffix(".png"),
        image=f"{row['ImageDir']}/{row['ImageID']}",
        patient=row["PatientID"],
        findings=prose(described),
        impression=prose(concluded) or prose(described[:1]),
        terms=tuple(terms),
    )


def _sides(finding: Finding, places: list[str]) -> tuple[Laterality | None, ...]:
    if not finding.sided:
        return (None,)
    text = " ".join(places)
    if "bilateral" in text:
        return _BOTH
    return tuple(side for side in _BOTH if side in text.split()) or (None,)


def _alone(finding: Finding) -> str:
    return f"{finding.label.capitalize()}."
