"""PadChest (Bustos et al., Medical Image Analysis 2020): 160,861 images with coded labels.

Its reports are Spanish, stemmed and without boxes, so the English targets are written from the codes. Only frontal
views that a physician labelled are used; a network labelled the others.
"""

import ast
import csv
import re
from collections import Counter
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


def read_padchest(table: Path, left_out: Counter[str] | None = None) -> Iterator[SourceImage]:
    """Yield the images of the label table that can be trained on.

    Args:
        table: the CSV, gzipped or not.
        left_out: counts the others by reason.

    Raises:
        BadTable: if the table can't be read, lacks a column, or has an invalid list of labels.
    """
    with open_table(table) as stream:
        reader = csv.DictReader(stream)
        require_columns(table, reader, COLUMNS, "give PadChest's label table")
        for number, row in enumerate(reader, start=2):
            image = _image(row, table, number)
            if isinstance(image, SourceImage):
                yield image
            elif left_out is not None:
                left_out[image] += 1


def _coded(text: str, table: Path, number: int) -> list[list[str]]:
    """Parse labels and places (``loc …``), sentence by sentence. The table's ``nan`` is a sentence without any."""
    try:
        sentences = ast.literal_eval(_NAN.sub("[]", text) or "[]")
        return [[str(code).strip() for code in sentence] for sentence in sentences]
    except (ValueError, SyntaxError, TypeError):
        raise BadTable(f"{table}, row {number}, column LabelsLocalizationsBySentence: not a list.") from None


def _image(row: dict[str, str], table: Path, number: int) -> SourceImage | str:
    """Return the image of a row, or why it is left out.

    It is normal if every sentence says so and one of them says it of the whole image. What is merely "unchanged"
    may be anything.
    """
    if row["Projection"] not in FRONTAL:
        return "not frontal"
    if row["MethodLabel"] != "Physician":
        return "labelled by a network"
    sentences = _coded(row["LabelsLocalizationsBySentence"], table, number)
    if any("exclude" in sentence for sentence in sentences):
        return "excluded by the collection"
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
        return "neither a finding nor known to be normal"
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
