"""The finding vocabulary: one table that the grammar, training, evaluation and every rendering share.

The table is ``findings.csv``, a row for each finding in the order of reports.
"""

import csv
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

Laterality = Literal["left", "right"]

Region = Literal[
    "heart", "lungs", "heart and lungs", "pleura", "mediastinum", "diaphragm", "bones", "chest wall", "devices"
]
"""The part of the chest that a finding belongs to."""

Number = Literal["singular", "plural", "uncountable"]
"""How a label stands in a sentence: *a nodule*, *chronic changes*, *pneumonia*."""


@dataclass(frozen=True)
class Finding:
    """One abnormality, device or trace of surgery that a report may name.

    Attributes:
        label: canonical English name, as it stands in LOCATIONS. No term begins with another term: the grammar
            couldn't tell where it ends.
        region: the part of the chest that isn't normal where the finding is.
        sided: whether the finding is always reported as left or right (the patient's side).
        number: whether the label takes an article, and which verb.
        colour: ``#rrggbb`` for boxes. Neighbours in the table differ in lightness as well as in hue, so that
            they stay apart for colour-blind readers (after Okabe and Ito, 2008).
        snomed_ct: SNOMED CT concept, or None where no single concept fits or none was found in a published
            value set.
        radlex: RadLex term where there is no SNOMED CT concept, or None where none fits. It may leave out the
            place that the label names.
        synonyms: other names that reports and label tables use.
        padchest: labels of PadChest (Bustos et al., Medical Image Analysis 2020), narrower ones included.
        vindr: classes of VinDr-CXR (Nguyen et al., Scientific Data 2022).
        chestxray14: labels of ChestX-ray14 (Wang et al., CVPR 2017). *Hernia* doesn't say which: left out.
        chexpert: labels of CheXpert (Irvin et al., AAAI 2019). *Enlarged Cardiomediastinum* doesn't say whether
            heart or mediastinum, *Pleural Other* names no finding: both are left out.
    """

    label: str
    region: Region
    sided: bool
    number: Number
    colour: str
    snomed_ct: str | None = None
    radlex: str | None = None
    synonyms: tuple[str, ...] = ()
    padchest: tuple[str, ...] = ()
    vindr: tuple[str, ...] = ()
    chestxray14: tuple[str, ...] = ()
    chexpert: tuple[str, ...] = ()

    @property
    def code(self) -> str:
        """The label as an identifier: ``pleural_effusion``."""
        return self.label.replace(" ", "_")

    def terms(self) -> tuple[str, ...]:
        """Return what LOCATIONS may call it: the label, with its side if it has one."""
        return (f"{self.label} right", f"{self.label} left") if self.sided else (self.label,)


_NAMES = tuple(field.name for field in fields(Finding))


def _finding(row: dict[str, str]) -> Finding:
    """Return the finding of a row. Cells with several names separate them by ``;``."""
    region = next(one for one in get_args(Region) if one == row["region"])
    number = next(one for one in get_args(Number) if one == row["number"])
    lists = {name: tuple(filter(None, row[name].split(";"))) for name in _NAMES[_NAMES.index("synonyms") :]}
    sided = {"yes": True, "no": False}[row["sided"]]
    snomed_ct, radlex = row["snomed_ct"] or None, row["radlex"] or None
    return Finding(row["label"], region, sided, number, row["colour"], snomed_ct, radlex, **lists)


def _read() -> tuple[Finding, ...]:
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as stream:
        return tuple(map(_finding, csv.DictReader(stream)))


FINDINGS: tuple[Finding, ...] = _read()
"""The vocabulary, in the order of reports. New findings go to the end: COCO files number them by it.

*Nodule or mass* is for collections that don't tell the two apart, *lung opacity*, *fracture* and *support device*
for those that don't say which.
"""

BY_LABEL: dict[str, Finding] = {finding.label: finding for finding in FINDINGS}

TERMS: dict[str, tuple[Finding, Laterality | None]] = {
    term: (finding, None if not finding.sided else ("left" if term.endswith(" left") else "right"))
    for finding in FINDINGS
    for term in finding.terms()
}
"""Every term that LOCATIONS may hold, with the finding and the side that it stands for."""
