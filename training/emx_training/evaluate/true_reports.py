"""The tables that dataset_prep writes, as what a model's reports are judged by."""

import csv
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emx_shared.contracts.box_table import BOX_COLUMNS
from emx_shared.contracts.findings import TERMS
from emx_shared.grammar import ReportText, parse
from emx_training.data.tables import BadTable, open_table
from emx_training.evaluate.report_labels import stated_findings
from emx_training.finetune.examples import read_boxes, read_reports


@dataclass(frozen=True)
class TrueReport:
    """One image of a table, with what is known of it.

    Attributes:
        name: the image's path in the table.
        image: its file.
        report: its report; of a table with boxes, with locations and with a text that was made from them.
        labels: findings that it shows, by their labels.
        patient: pseudonym; None if the table has none.
    """

    name: str
    image: Path
    report: ReportText
    labels: frozenset[str]
    patient: str | None


@dataclass(frozen=True)
class TrueTable:
    """A table's images.

    Attributes:
        reports: of the images.
        has_boxes: whether the table says where findings are. If it does, no radiologist wrote its text.
        labels_from: where ``TrueReport.labels`` come from: ``boxes``, ``terms`` (the table's column) or ``text``.
        left_out: why rows can't be judged by; empty if all can.
    """

    reports: tuple[TrueReport, ...]
    has_boxes: bool
    labels_from: str
    left_out: str


def read_true_reports(table: Path, images: Path) -> TrueTable:
    """Read a table of phase 1 (image, findings, impression) or of phase 2 (image, term, box).

    A column ``patient`` is taken, if there is one. So is ``terms`` of a phase 1 table, unless it is empty.

    Args:
        table: the CSV.
        images: the folder that its paths start from.

    Raises:
        BadTable: if the table or an image is invalid. The message names row and column.
    """
    with open_table(table) as stream:
        rows = list(csv.DictReader(stream))
    has_boxes = bool(rows) and set(BOX_COLUMNS) <= rows[0].keys()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        examples = (read_boxes if has_boxes else read_reports)(table, images)
    has_terms = not has_boxes and any(row.get("terms") for row in rows)
    of_image = {images / row["image"]: row for row in rows}
    reports = []
    for example in examples:
        row = of_image[example.image]
        report = parse("".join(text for text, _ in example.answer))
        if has_boxes:
            labels = frozenset(one.finding.label for one in report.locations)
        elif has_terms:
            labels = _labels_of_terms(row["terms"], table)
        else:
            labels = stated_findings(prose_of(report))
        reports.append(TrueReport(row["image"], example.image, report, labels, row.get("patient") or None))
    return TrueTable(
        tuple(reports),
        has_boxes,
        "boxes" if has_boxes else "terms" if has_terms else "text",
        "; ".join(str(one.message) for one in caught),
    )


def prose_of(report: ReportText) -> str:
    """Return FINDINGS and IMPRESSION of a report as one text."""
    return f"{report.findings} {report.impression}".strip()


def patients_of(reports: Sequence[TrueReport]) -> list[str] | None:
    """Return whose each image is; None if the table doesn't say so for all."""
    known = [one.patient for one in reports if one.patient is not None]
    return known if len(known) == len(reports) else None


def _labels_of_terms(terms: str, table: Path) -> frozenset[str]:
    named = [term for term in terms.split(";") if term]
    if unknown := [term for term in named if term not in TERMS]:
        raise BadTable(f"{table}, column terms: {unknown[0]!r} isn't in the finding vocabulary.")
    return frozenset(TERMS[term][0].label for term in named)
