"""PadChest (Bustos et al., Medical Image Analysis 2020): 160,861 images with coded labels.

Its reports are Spanish, stemmed and without boxes, so the English targets are written from the codes. Only frontal
views that a physician labelled are used; a network labelled the others.
"""

import ast
import csv
import re
from collections.abc import Iterator
from pathlib import Path

from emx_shared.contracts.findings import Laterality
from emx_training.data.padchest_text import (
    LIMITED,
    Mention,
    conclude,
    contradicts,
    describe,
    describe_normal,
    mentions,
)
from emx_training.data.phantom_reports import HEART_NORMAL, LUNGS_CLEAR, NOTHING_FOUND
from emx_training.data.source_image import SourceImage, prose, term
from emx_training.data.tables import BadTable, open_table, require_columns

COLUMNS = ("ImageID", "ImageDir", "PatientID", "Projection", "MethodLabel", "LabelsLocalizationsBySentence")
FRONTAL = ("PA", "AP", "AP_horizontal")

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


def _coded(text: str, table: Path, number: int) -> list[list[str]]:
    """Parse labels and places (``loc …``), sentence by sentence. The table's ``nan`` is a sentence without any."""
    try:
        sentences = ast.literal_eval(_NAN.sub("[]", text) or "[]")
        return [[str(code).strip() for code in sentence] for sentence in sentences]
    except (ValueError, SyntaxError, TypeError):
        raise BadTable(f"{table}, row {number}, column LabelsLocalizationsBySentence: not a list.") from None


def _image(row: dict[str, str], sentences: list[list[str]]) -> SourceImage | None:
    """Return the image of a row, or None if too little is known.

    It is normal if every sentence says so and one of them says it of the whole image. What is merely "unchanged"
    may be anything.
    """
    named = [mentions(sentence) for sentence in sentences]
    found = [one for sentence in named for one in sentence]
    described = [text for sentence in named for text in describe(sentence)]
    labels = {code for sentence in sentences for code in sentence if not code.startswith("loc ")}
    if found:
        normal = dict.fromkeys(describe_normal(sentence) for sentence in sentences if sentence[:1] == ["normal"])
        described += [text for text in normal if text and not contradicts(text, found)]
        concluded = conclude(found)
    elif labels <= {"normal", "suboptimal study", ""} and ["normal"] in sentences:
        described, concluded = [HEART_NORMAL, LUNGS_CLEAR], [NOTHING_FOUND]
    else:
        return None
    if "suboptimal study" in labels:
        described.append(LIMITED)
    return SourceImage(
        id=row["ImageID"].removesuffix(".png"),
        image=f"{row['ImageDir']}/{row['ImageID']}",
        patient=row["PatientID"],
        findings=prose(described),
        impression=prose(concluded),
        terms=tuple(dict.fromkeys(name for one in found for name in _terms(one))),
    )


def _terms(one: Mention) -> Iterator[str]:
    if one.finding:
        sides = _BOTH if one.side == "both" else (one.side,)
        yield from filter(None, (term(one.finding, side) for side in sides))
