"""What phase 1's adapter writes about phase 2's images: the text that LOCATIONS will follow when it is served."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from emx_shared.grammar import MalformedReport, ReportText, parse
from emx_training.data.tables import REPORT_COLUMNS, open_table, write_table
from emx_training.evaluate.image_reader import read_images
from emx_training.evaluate.true_reports import TrueReport
from emx_training.finetune.examples import Example

FILE = "own-texts.csv"
"""In phase 2's folder: image, findings, impression."""


def with_own_texts(
    examples: Sequence[Example], base: str, phase1: Path, output: Path, quantisation: str
) -> list[Example]:
    """Put into examples the text that phase 1's adapter writes about their images, in place of a template's.

    Images are read once: a run that resumes finds the texts in ``output``. An image that the model can't read, or
    whose report it doesn't finish, keeps the template's text.

    Args:
        examples: of phase 2.
        base: checkpoint directory or hub id.
        phase1: phase 1's adapter.
        output: phase 2's folder.
        quantisation: of the weights that write; auto, nf4 or none.

    Raises:
        ModelError: if the model can't be loaded.
    """
    texts = _read(output / FILE)
    if missing := [one for one in examples if str(one.image) not in texts]:
        texts |= _written(missing, base, phase1, quantisation)
        rows = ((image, *sections) for image, sections in texts.items())
        part = output / f"{FILE}.{os.getpid()}.part"
        write_table(part, REPORT_COLUMNS, rows)
        part.replace(output / FILE)
    return [_following(one, *texts[str(one.image)]) for one in examples]


def _read(file: Path) -> dict[str, tuple[str, str]]:
    if not file.exists():
        return {}
    with open_table(file) as lines:
        return {row["image"]: (row["findings"], row["impression"]) for row in csv.DictReader(lines)}


def _written(
    examples: Sequence[Example], base: str, phase1: Path, quantisation: str
) -> dict[str, tuple[str, str]]:
    nothing = ReportText("", (), "")
    asked = [TrueReport(str(one.image), one.image, nothing, frozenset(), None) for one in examples]
    reading = read_images(base, asked, adapter=phase1, quantisation=quantisation)
    texts = {}
    for one in examples:
        found = reading.predictions.get(str(one.image))
        try:
            report = parse(found.prediction) if found and not found.abstained else nothing
        except MalformedReport:
            report = nothing
        texts[str(one.image)] = (report.findings, report.impression)
    return texts


def _following(example: Example, findings: str, impression: str) -> Example:
    """Return the example with LOCATIONS after ``findings``, unless these are empty."""
    if not findings or not impression:
        return example
    (_, *located, _) = example.answer
    before, after = (f"FINDINGS: {findings}\nLOCATIONS: ", False), (f"IMPRESSION: {impression}", False)
    return Example(example.image, (before, *located, after))
