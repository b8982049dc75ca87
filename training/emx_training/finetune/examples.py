"""Rows of the training tables as examples: an image, and the report that the model learns to write."""

import csv
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from emx_shared.contracts.box_table import BOX_COLUMNS, OTHER
from emx_shared.contracts.findings import BY_LABEL, TERMS
from emx_shared.grammar import (
    LOCATIONS,
    LocatedFinding,
    LocBox,
    MalformedReport,
    ReportText,
    as_prose,
    first_refused,
    is_prose,
    parse,
)
from emx_shared.imaging import MEDIA_TYPES, NotAnImage, media_type
from emx_training.data.phantom_reports import report_of
from emx_training.data.tables import REPORT_COLUMNS, BadTable, require_columns

_CORNERS = ("xmin", "ymin", "xmax", "ymax")

_NAMED = 20
"""Rows that a warning names."""


@dataclass(frozen=True)
class Example:
    """One image with its answer, in pieces that the loss falls on or not.

    Attributes:
        image: path of the file.
        answer: (text, trained) in order; together the report's text.
    """

    image: Path
    answer: tuple[tuple[str, bool], ...]


def read_reports(table: Path, images: Path) -> list[Example]:
    """Read a phase 1 table: image, findings, impression.

    The loss doesn't fall on LOCATIONS, since such tables don't have them. Every row is checked, before any time is
    spent on training. A row whose text no report can hold, or without one, is left out with a warning.

    Args:
        table: the CSV.
        images: the folder that its paths start from.

    Raises:
        BadTable: for an invalid table, or one of which no row is left. The message names row and column.
    """
    examples = []
    refused: list[str] = []
    for number, row in _rows(table, REPORT_COLUMNS):
        sections = {name: as_prose(row[name]) for name in REPORT_COLUMNS[1:]}
        if wrong := next((name for name, text in sections.items() if not is_prose(text)), None):
            because = f"holds {each!r}" if (each := first_refused(sections[wrong])) else "is empty"
            refused.append(f"row {number}, column {wrong}: {because}")
            continue
        answer = (
            (f"FINDINGS: {sections['findings']}\n", True),
            ("LOCATIONS: none", False),
            (f"\nIMPRESSION: {sections['impression']}", True),
        )
        examples.append(Example(_image(images / row["image"], table, number), answer))
    if refused:
        some = "; ".join(refused[:_NAMED]) + ("; …" if len(refused) > _NAMED else "")
        what = f"{table}: {len(refused)} of {len(refused) + len(examples)} rows have text that no report can hold"
        if not examples:
            raise BadTable(f"{what} ({some}).")
        warnings.warn(f"{what}, and are left out ({some}).", stacklevel=2)
    return examples


def read_boxes(table: Path, images: Path) -> list[Example]:
    """Read a phase 2 table: image, term and box in fractions of the image, a row for each box.

    An image whose only row has neither term nor box is normal. A row with a label or ``other``, but without box,
    says what the image shows or may show besides: the text doesn't deny it. The loss falls on LOCATIONS alone: the
    table doesn't say what a radiologist wrote, and the sentences around LOCATIONS are a template's.

    Args:
        table: the CSV.
        images: the folder that its paths start from.

    Raises:
        BadTable: for an invalid table. The message names row and column.
    """
    found: dict[str, list[LocatedFinding]] = {}
    unlocated: dict[str, list[str]] = {}
    paths: dict[str, Path] = {}
    for number, row in _rows(table, BOX_COLUMNS):
        name = row["image"]
        if name not in paths:
            paths[name] = _image(images / name, table, number)
        located, besides = found.setdefault(name, []), unlocated.setdefault(name, [])
        if any(row[side] for side in _CORNERS):
            located.append(_located(row, table, number))
        elif row["term"]:
            besides.append(_unlocated(row["term"], table, number))
    for name, located in found.items():
        if unlocated[name] and not located:
            raise BadTable(f"{table}: image {name} has no box and isn't normal: leave it out.")
    reports = {name: report_of(located, unlocated[name]) for name, located in found.items()}
    for name, report in reports.items():
        if not _parses(report):
            raise BadTable(f"{table}: image {name} has more boxes ({len(report.locations)}) than a report holds.")
    return [Example(paths[name], _locations_trained(one, not unlocated[name])) for name, one in reports.items()]


def _locations_trained(report: ReportText, complete: bool) -> tuple[tuple[str, bool], ...]:
    """Return the answer of which LOCATIONS is trained; its end only if no other finding may belong there.

    The space before it is, too: tokenizers make it part of the first word, which says whether there is a finding.
    """
    before, marker, rest = str(report).partition(LOCATIONS.rstrip())
    located, line_break, after = rest.partition("\n")
    return ((before + marker, False), (located, True), (line_break, complete), (after, False))


def _rows(table: Path, columns: Sequence[str]) -> Iterable[tuple[int, dict[str, str]]]:
    """Yield each row with its number in the file; the header is row 1."""
    number = 1
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:  # spreadsheets begin a table with a BOM
            reader = csv.DictReader(stream)
            require_columns(table, reader, columns, "make it with emx_training.dataset_prep")
            for number, row in enumerate(reader, start=2):
                if None in row or None in row.values():
                    raise BadTable(f"{table}, row {number}: the number of cells isn't that of the columns.")
                yield number, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadTable(f"{table} can't be read ({error}).") from None
    if number == 1:
        raise BadTable(f"{table} has no rows: make it with emx_training.dataset_prep.")


def _parses(report: ReportText) -> bool:
    try:
        return parse(str(report)) == report
    except MalformedReport:
        return False


def _image(path: Path, table: Path, number: int) -> Path:
    """Return the path if the file begins as an image. Damage further on is found when the image is decoded."""
    where = f"{table}, row {number}, column image"
    try:
        with path.open("rb") as file:
            kind = media_type(file.read(132))
        if kind != MEDIA_TYPES["DICOM"]:
            Image.open(path).close()
        return path
    except FileNotFoundError:
        raise BadTable(f"{where}: there is no file {path}.") from None
    except NotAnImage:
        raise BadTable(f"{where}: {path} isn't a PNG, JPEG, TIFF or DICOM image.") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise BadTable(f"{where}: {path} can't be read ({error}).") from None


def _unlocated(label: str, table: Path, number: int) -> str:
    if label == OTHER or label in BY_LABEL:
        return label
    raise BadTable(
        f"{table}, row {number}, column term: {label!r} has no box. Without one, give a label without its side, "
        f"or {OTHER!r}."
    )


def _located(row: dict[str, str], table: Path, number: int) -> LocatedFinding:
    if row["term"] not in TERMS:
        raise BadTable(f"{table}, row {number}, column term: {row['term']!r} isn't in the finding vocabulary.")
    try:
        xmin, ymin, xmax, ymax = (float(row[name]) for name in _CORNERS)
    except ValueError:
        raise BadTable(f"{table}, row {number}: xmin, ymin, xmax, ymax must be numbers.") from None
    for axis, low, high in (("x", xmin, xmax), ("y", ymin, ymax)):
        if not 0 <= low < high <= 1:
            raise BadTable(
                f"{table}, row {number}, columns {axis}min and {axis}max: the box is inverted, empty or outside "
                f"the image, which reaches from 0 to 1 ({low:g} and {high:g})."
            )
    return LocatedFinding(*TERMS[row["term"]], LocBox.of_fractions(ymin, xmin, ymax, xmax))
