"""PadChest-GR (Castro et al., NEJM AI 2025): 4,555 images of PadChest, each finding with boxes by radiologists."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emx_training.data.boxes import BoxedImage, Rectangle, rectangle
from emx_training.data.padchest import finding_of
from emx_training.data.source_study import BadTable


def read_padchest_gr(table: Path) -> Iterator[BoxedImage]:
    """The boxes of ``grounded_reports_*.json``, of findings that the vocabulary has.

    Only the first reader's boxes are taken (``boxes``, in fractions of the image), not those drawn a second time
    (``extra_boxes``). An image with a finding that isn't in the vocabulary and nothing else is left out: it is not
    normal. Raises BadTable.
    """
    try:
        studies = json.loads(table.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadTable(f"{table} can't be read ({error}): give PadChest-GR's grounded_reports_….json.") from None
    if not isinstance(studies, list):
        raise BadTable(f"{table} holds no list of studies: give PadChest-GR's grounded_reports_….json.")
    for number, study in enumerate(studies, start=1):
        where = f"{table}, study {number}"
        try:
            image, findings = study["ImageID"], [one for one in study["findings"] if one["abnormal"]]
            found = tuple(box for one in findings for box in _boxes(one, where))
        except (KeyError, TypeError) as error:
            raise BadTable(f"{where}: {error} is missing, or isn't what PadChest-GR has there.") from None
        if found or not findings:
            yield BoxedImage(image, found, in_fractions=True)


def _boxes(finding: dict[str, Any], where: str) -> Iterator[tuple[str, Rectangle]]:
    known = (finding_of(label) for label in finding.get("labels") or ())
    labels = dict.fromkeys(one.label for one in known if one)
    for box in finding.get("boxes") or ():
        drawn = rectangle(box, f"{where}, boxes")
        for label in labels:
            yield label, drawn
