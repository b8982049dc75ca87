"""Writes reference/vocabulary.md from the table of findings."""

from emx_shared.contracts.findings import FINDINGS, Finding

_HEAD = """# Finding vocabulary

Generated from `shared/emx_shared/contracts/findings.csv`. Boxes carry these labels; a
model names those that it was trained on (the demo model: eight). *Sided* findings are always reported as left or
right.

A finding without a SNOMED CT code has no single concept, or none that could be confirmed in a published value set;
some of these have a RadLex term, which may leave out the place.

| finding | region | sided | SNOMED CT | RadLex | other names | PadChest | VinDr-CXR | ChestX-ray14 | CheXpert |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def vocabulary_reference() -> str:
    """Return the page."""
    return _HEAD + "".join(f"| {' | '.join(_cells(finding))} |\n" for finding in FINDINGS)


def _cells(finding: Finding) -> list[str]:
    lists = (finding.synonyms, finding.padchest, finding.vindr, finding.chestxray14, finding.chexpert)
    return [
        finding.label,
        finding.region,
        "yes" if finding.sided else "",
        finding.snomed_ct or "",
        finding.radlex or "",
        *("; ".join(names) for names in lists),
    ]
