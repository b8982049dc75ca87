"""Open-i: the Indiana University reports (Demner-Fushman et al., JAMIA 2016), in English.

They are published as XML in a tar file, and on Kaggle as two tables, which say which images are frontal.
"""

import csv
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from emx_shared.grammar import as_prose, sentences
from emx_training.data.image_folder import stem_of
from emx_training.data.source_image import SourceImage, prose
from emx_training.data.tables import BadTable, open_table, require_columns

REPORT_TABLE_COLUMNS = ("uid", "findings", "impression")
PROJECTION_COLUMNS = ("uid", "filename", "projection")

_MASKED = re.compile(r"X{2,}")
_STRAY = re.compile(r"(?<=[.!?]) \.(?=\s|$)")
_NUMBER = re.compile(r"^\d{1,2}\. ")


def read_openi(
    reports: Path, projections: Path | None = None, left_out: Counter[str] | None = None
) -> Iterator[SourceImage]:
    """Yield each image of every report that has both sections; of Kaggle's tables, the frontal ones.

    Sentences in which a word was masked are left out. The XML doesn't say which images are frontal: point
    ``--images`` at a folder with only the frontal ones, and the others are skipped as missing. A report is in the
    same split whichever way it is published.

    Args:
        reports: ``NLMCXR_reports.tgz``, or Kaggle's ``indiana_reports.csv``.
        projections: ``indiana_projections.csv``, with Kaggle's reports.
        left_out: counts the others by reason.

    Raises:
        BadTable: if a file can't be read, lacks a column, or is given without the other.
    """
    dropped = Counter[str]() if left_out is None else left_out
    if projections is not None:
        yield from _of_tables(reports, projections, dropped)
        return
    if ".csv" in reports.suffixes:
        raise BadTable(f"{reports} doesn't say which images are frontal: give indiana_projections.csv, too.")
    try:
        with tarfile.open(reports) as archive:
            for member in archive:
                if member.name.endswith(".xml") and (stream := archive.extractfile(member)):
                    root = ElementTree.parse(stream).getroot()
                    yield from _images(root, Path(member.name).stem, dropped)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise BadTable(f"{reports} can't be read as a tar file ({type(error).__name__}).") from None
    except ElementTree.ParseError as error:
        raise BadTable(f"{reports}, {member.name}: invalid XML ({error}).") from None


def _images(root: ElementTree.Element, report: str, left_out: Counter[str]) -> Iterator[SourceImage]:
    sections = {node.get("Label", "").lower(): node.text or "" for node in root.iter("AbstractText")}
    names = [image.get("id", "") for image in root.iter("parentImage")]
    yield from _of_report(report, sections, {name: f"{name}.png" for name in names}, left_out)


def _of_tables(reports: Path, projections: Path, left_out: Counter[str]) -> Iterator[SourceImage]:
    frontal: defaultdict[str, dict[str, str]] = defaultdict(dict)
    try:
        with open_table(projections) as stream:
            reader = csv.DictReader(stream)
            require_columns(projections, reader, PROJECTION_COLUMNS, "give indiana_projections.csv")
            for row in reader:
                if row["projection"].strip().lower() == "frontal":
                    frontal[row["uid"]][stem_of(stem_of(row["filename"]))] = row["filename"]
                else:
                    left_out["not frontal"] += 1
        with open_table(reports) as stream:
            reader = csv.DictReader(stream)
            require_columns(reports, reader, REPORT_TABLE_COLUMNS, "give indiana_reports.csv")
            for row in reader:
                yield from _of_report(row["uid"], row, frontal[row["uid"]], left_out)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadTable(f"{reports} or {projections} can't be read ({error}).") from None


def _of_report(
    report: str, sections: Mapping[str, str], images: Mapping[str, str], left_out: Counter[str]
) -> Iterator[SourceImage]:
    """Yield a report's images.

    Args:
        report: stands for its patient.
        sections: text by the section's name.
        images: path by id.
        left_out: counts those of a report without one of the sections.
    """
    findings, impression = (prose(_sentences(sections.get(name, ""))) for name in ("findings", "impression"))
    if not findings or not impression:
        left_out["report without findings or impression"] += len(images)
        return
    for name, path in images.items():
        yield SourceImage(name, path, report, findings, impression, ())


def _sentences(text: str) -> list[str]:
    """Return the sentences of a section in which no word was masked.

    The reports have a few line breaks as tags, and some end without a mark. A list that lost an entry loses its
    numbers.
    """
    line = _STRAY.sub("", as_prose(text.replace("<BR>", " ")))
    found = [line[begin:end] for begin, end in sentences(line)]
    kept = [one for one in found if not _MASKED.search(one) and any(map(str.isalpha, one))]
    if len(kept) < len(found):
        kept = [_NUMBER.sub("", one) for one in kept]
    return [one if one.endswith(tuple(".!?")) else f"{one}." for one in kept]
