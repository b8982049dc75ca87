"""Open-i: the Indiana University reports (Demner-Fushman et al., JAMIA 2016), in English, as XML in a tar file."""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from emx_training.data.source_study import BadTable, SourceStudy, prose

_BREAK = re.compile(r"(?<=[.!?])\s+")
_MASKED = re.compile(r"XXXX|X{2,}")


def read_openi(reports: Path) -> Iterator[SourceStudy]:
    """One study for each image of a report that has both sections. Raises BadTable.

    Which images are frontal isn't in the reports: give the folder of the frontal ones, the others are then absent
    and skipped. Sentences with words that were masked out are left out.
    """
    try:
        with tarfile.open(reports) as archive:
            for member in archive:
                if member.name.endswith(".xml") and (stream := archive.extractfile(member)):
                    root = ElementTree.parse(stream).getroot()
                    yield from _studies(root, Path(member.name).stem)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise BadTable(f"{reports} can't be read as a tar file ({type(error).__name__}).") from None
    except ElementTree.ParseError as error:
        raise BadTable(f"{reports}, {member.name}: no XML ({error}).") from None


def _studies(root: ElementTree.Element, report: str) -> Iterator[SourceStudy]:
    sections = {node.get("Label"): node.text or "" for node in root.iter("AbstractText")}
    findings, impression = (prose(_sentences(sections.get(name, ""))) for name in ("FINDINGS", "IMPRESSION"))
    if not findings or not impression:
        return
    for image in root.iter("parentImage"):
        name = image.get("id", "")
        yield SourceStudy(
            id=name, image=f"{name}.png", patient=report, findings=findings, impression=impression, terms=()
        )


def _sentences(text: str) -> list[str]:
    cleaned = (part.strip().rstrip(".") for part in _BREAK.split(text.replace("\n", " ")))
    return [f"{part[0].upper()}{part[1:]}." for part in cleaned if part and not _MASKED.search(part)]
