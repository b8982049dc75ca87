"""The CSV tables: those of collections, and the two that training reads."""

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

REPORT_COLUMNS = ("image", "findings", "impression")
"""Columns of a phase 1 table: the path below the image folder, and two sections of text."""


class BadTable(ValueError):
    """A table is invalid. The message names the file, the row and the column."""


def open_table(table: Path) -> IO[str]:
    """Open a CSV, gzipped or not; spreadsheets begin it with a byte order mark, which is passed over.

    Raises:
        BadTable: if it can't be opened.
    """
    try:
        if table.suffix == ".gz":
            return io.TextIOWrapper(gzip.open(table), encoding="utf-8-sig", newline="")
        return table.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise BadTable(f"{table} can't be read: {error.strerror}.") from None


def require_columns(table: Path, reader: "csv.DictReader[str]", columns: Sequence[str], advice: str) -> None:
    """Check that a table has all columns.

    Args:
        table: the file, which an error names.
        reader: of the table.
        columns: the names that its header must have.
        advice: what to do if one is missing.

    Raises:
        BadTable: if a column is missing.
    """
    if lacking := [name for name in columns if name not in (reader.fieldnames or ())]:
        raise BadTable(f"{table} has no column {', '.join(lacking)}: {advice}.")


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV with a header. The file appears whole or not at all."""
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
    part.replace(path)
