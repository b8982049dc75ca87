"""The finding vocabulary, beside the published tables of four collections."""

import csv
import gzip
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, pairwise

from emx_shared.contracts.findings import FINDINGS, TERMS
from emx_training.data.padchest import FRONTAL, _coded
from support.collections import CHESTXRAY14, CHEXPERT, PADCHEST, VINDR, real_tables


def rows(table: str) -> Iterator[dict[str, str]]:
    with gzip.open(table, "rt", encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def test_a_name_stands_for_one_finding() -> None:
    names = Counter(name for finding in FINDINGS for name in {finding.label, *finding.synonyms})
    assert {name for name, count in names.items() if count > 1} == set()
    assert all(name == name.lower().strip() for name in names)
    for field in ("padchest", "vindr", "chestxray14", "chexpert"):
        labels = Counter(label for finding in FINDINGS for label in getattr(finding, field))
        assert {label for label, count in labels.items() if count > 1} == set()


def test_no_term_begins_with_another() -> None:
    """Else the grammar couldn't tell where a term ends: *tuberculosis*, or *tuberculosis sequelae*?"""
    assert [(one, other) for one in TERMS for other in TERMS if other.startswith(f"{one} ")] == []


def test_codes_are_snomed_cts() -> None:
    """The last digit of a concept's identifier checks the others (Verhoeff), and two before it say "concept"."""
    codes = [finding.snomed_ct for finding in FINDINGS if finding.snomed_ct]
    assert len(set(codes)) == len(codes)
    assert all(code.isdigit() and code[-3:-1] == "00" and verhoeff(code) == 0 for code in codes)


def test_radlex_terms_stand_where_snomed_ct_has_none() -> None:
    terms = [finding.radlex for finding in FINDINGS if finding.radlex]
    assert len(set(terms)) == len(terms) > 20
    assert all(term.startswith("RID") and term[3:].isdigit() for term in terms)
    assert not any(finding.radlex and finding.snomed_ct for finding in FINDINGS)


def verhoeff(digits: str) -> int:
    """Return the check of a number, 0 if it is right (J. Verhoeff, 1969; SNOMED CT's Release File Guide)."""
    permuted = [list(range(10)), [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
    while len(permuted) < 8:
        permuted.append([permuted[-1][digit] for digit in permuted[1]])
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = _dihedral(check, permuted[place % 8][int(digit)])
    return check


def _dihedral(left: int, right: int) -> int:
    """Multiply in the dihedral group of order 10: 0 to 4 are rotations, 5 to 9 reflections."""
    if left < 5:
        return (left + right) % 5 if right < 5 else 5 + (left + right) % 5
    return 5 + (left - right) % 5 if right < 5 else (left - right) % 5


def test_the_check_digit_finds_a_wrong_code() -> None:
    assert verhoeff("22298006") == 0  # myocardial infarction
    assert verhoeff("22289006") != 0


def test_neighbours_differ_in_lightness_and_all_in_colour() -> None:
    colours = [oklab(finding.colour) for finding in FINDINGS]
    for one, other in pairwise(colours):
        assert abs(one[0] - other[0]) >= 0.018 and apart(one, other) >= 0.09
    assert min(apart(one, other) for one, other in combinations(colours, 2)) >= 0.04


def apart(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return float(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5)


def oklab(colour: str) -> tuple[float, float, float]:
    """Return lightness and the two colour axes (B. Ottosson, *A perceptual color space*, 2020)."""
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    )
    long = (0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue) ** (1 / 3)
    middle = (0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue) ** (1 / 3)
    short = (0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


_VINDR_ELSEWHERE = {"Edema", "Emphysema", "Rib fracture", "Lung cavity", "Mediastinal shift", "Clavicle fracture"}
"""Classes of VinDr-CXR on PhysioNet (its paper's table 1) that its competition counts as *Other lesion*."""


@real_tables
def test_nearly_all_that_padchests_physicians_named_is_in_the_vocabulary() -> None:
    known = {label for finding in FINDINGS for label in finding.padchest}
    no_finding = {"normal", "unchanged", "exclude", "suboptimal study"}
    seen: set[str] = set()
    named: Counter[str] = Counter()
    for number, row in enumerate(rows(str(PADCHEST))):
        labels = [one for sentence in _coded(row["LabelsLocalizationsBySentence"], PADCHEST, number)
                  for one in sentence if not one.startswith("loc ")]  # fmt: skip
        seen.update(labels, re.findall(r"'\s*([^']+?)\s*'", row["Labels"]))
        if row["MethodLabel"] == "Physician" and row["Projection"] in FRONTAL:
            named.update(label for label in labels if label not in no_finding)
    assert known <= seen
    assert sum(count for label, count in named.items() if label in known) >= 0.99 * named.total()


@real_tables
def test_the_other_collections_labels_are_in_the_vocabulary() -> None:
    def known(field: str) -> set[str]:
        return {label for finding in FINDINGS for label in getattr(finding, field)}

    vindr = {row["class_name"] for row in rows(str(VINDR))}
    assert vindr - known("vindr") == {"No finding", "Other lesion"}
    assert known("vindr") - vindr == _VINDR_ELSEWHERE
    chestxray14 = {label for row in rows(str(CHESTXRAY14)) for label in row["Finding Labels"].split("|")}
    assert chestxray14 - known("chestxray14") == {"No Finding", "Hernia"} and known("chestxray14") <= chestxray14
    chexpert = set(next(rows(str(CHEXPERT)))) - {"Path", "Sex", "Age", "Frontal/Lateral", "AP/PA"}
    assert known("chexpert") <= chexpert
    assert chexpert - known("chexpert") == {"No Finding", "Enlarged Cardiomediastinum", "Pleural Other"}
