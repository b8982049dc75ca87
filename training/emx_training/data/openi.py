"""Open-i: the Indiana University reports (Demner-Fushman et al., JAMIA 2016), in English, as XML in a tar file."""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from emx_shared.grammar import as_prose, sentences
from emx_training.data.source_image import SourceImage, prose
from emx_training.data.tables import BadTable

_MASKED = re.compile(r"X{2,}")
_STRAY = re.compile(r"(?<=[.!?]) \.(?=\s|$)")
_NUMBER = re.compile(r"^\d{1,2}\. ")


def read_openi(reports: Path) -> Iterator[SourceImage]:
    """Yield each image of every report that has both sections.

    Sentences in which a word was masked are left out. The reports don't say which images are frontal: point
    ``--images`` at a folder with only the frontal ones, and the others are skipped as missing.

    Raises:
        BadTable: if the archive or a report in it can't be read.
    """
    try:
        with tarfile.open(reports) as archive:
            for member in archive:
                if member.name.endswith(".xml") and (stream := archive.extractfile(member)):
                    root = ElementTree.parse(stream).getroot()
                    yield from _images(root, Path(member.name).stem)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise BadTable(f"{reports} can't be read as a tar file ({type(error).__name__}).") from None
    except ElementTree.ParseError as error:
        raise BadTable(f"{reports}, {member.name}: invalid XML ({error}).") from None


def _images(root: ElementTree.Element, report: str) -> Iterator[SourceImage]:
    sections = {node.get("Label"): node.text or "" for node in root.iter("AbstractText")}
    findings, impression = (prose(_sentences(sections.get(name, ""))) for name in ("FINDINGS", "IMPRESSION"))
    if not findings or not impression:
        return
    for image in root.iter("parentImage"):
        name = image.get("id", "")
        yield SourceImage(
            id=name, image=f"{name}.png", patient=report, findings=findings, impression=impression, terms=()
        )


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
