"""The finding vocabulary: one table that the grammar, training, evaluation and every rendering share."""

from dataclasses import dataclass
from typing import Literal

Laterality = Literal["left", "right"]


@dataclass(frozen=True)
class Finding:
    """One abnormality that a report may name.

    Attributes:
        label: canonical English name, as it stands in LOCATIONS.
        sided: whether the finding is always reported as left or right (the patient's side).
        colour: ``#rrggbb`` for boxes. Neighbours in the table differ in lightness as well as in hue, so that
            they stay apart for colour-blind readers (after Okabe and Ito, 2008).
        snomed_ct: SNOMED CT concept, or None where no single concept fits.
        padchest: label in the PadChest table (Bustos et al., Medical Image Analysis 2020), or None.
        synonyms: other names that reports and label tables use.
    """

    label: str
    sided: bool
    colour: str
    snomed_ct: str | None = None
    padchest: str | None = None
    synonyms: tuple[str, ...] = ()

    @property
    def code(self) -> str:
        """The label as an identifier: ``pleural_effusion``."""
        return self.label.replace(" ", "_")

    def terms(self) -> tuple[str, ...]:
        """Return what LOCATIONS may call it: the label, with its side if it has one."""
        return (f"{self.label} right", f"{self.label} left") if self.sided else (self.label,)


FINDINGS: tuple[Finding, ...] = (
    Finding("cardiomegaly", False, "#d55e00", "8186001", "cardiomegaly", ("enlarged heart",)),
    Finding("pleural effusion", True, "#56b4e9", "60046008", "pleural effusion", ("effusion",)),
    Finding("pneumothorax", True, "#f0e442", "36118008", "pneumothorax"),
    Finding("consolidation", True, "#cc79a7", "95436008", "consolidation", ("airspace opacity",)),
    Finding("atelectasis", True, "#e69f00", "46621007", "atelectasis", ("collapse",)),
    Finding("nodule", True, "#009e73", "427359005", "nodule", ("lung nodule", "pulmonary nodule")),
    Finding("mass", True, "#ff5470", "309529002", "mass", ("lung mass", "pulmonary mass")),
    Finding("interstitial pattern", True, "#9f8cff", "233703007", "interstitial pattern"),
    Finding("pulmonary edema", False, "#35c8c8", "19242006", "pulmonary edema"),
    Finding("pneumonia", True, "#b35c9b", "233604007", "pneumonia"),
    Finding("emphysema", False, "#b8d94b", "87433001", "emphysema"),
    Finding("pulmonary fibrosis", True, "#7a9cff", "51615001", "pulmonary fibrosis", ("fibrosis",)),
    Finding("pleural thickening", True, "#8fbcd4", None, "pleural thickening"),
    Finding("rib fracture", True, "#ff9e80", "33737001", "rib fracture"),
    Finding("hiatal hernia", False, "#a1887f", "84089009", "hiatal hernia"),
    Finding("scoliosis", False, "#c0a16b", "298382003", "scoliosis"),
)

BY_LABEL: dict[str, Finding] = {finding.label: finding for finding in FINDINGS}

TERMS: dict[str, tuple[Finding, Laterality | None]] = {
    term: (finding, None if not finding.sided else ("left" if term.endswith(" left") else "right"))
    for finding in FINDINGS
    for term in finding.terms()
}
"""Every term that LOCATIONS may hold, with the finding and the side that it stands for."""
