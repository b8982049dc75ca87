"""The true report of an image whose boxes are known: one fixed text for each set of located findings.

The text depends only on the findings and their boxes, so that greedy decoding has one right answer. A sentence
stands once, for however many boxes.
"""

from collections.abc import Collection, Iterator, Sequence

from emx_shared.contracts.box_table import OTHER
from emx_shared.contracts.findings import BY_LABEL, FINDINGS, TERMS, Finding, Laterality
from emx_shared.grammar import LocatedFinding, LocBox, ReportText

SIDES: tuple[Laterality, ...] = ("right", "left")
ZONES = ("upper", "mid", "lower")
SIZES = ("small", "moderate", "large")

HEART_ENLARGED = "The heart is enlarged."
HEART_NORMAL = "The heart size is normal."
LUNGS_CLEAR = "The lungs and pleural spaces are clear."
NOTHING_FOUND = "No acute cardiopulmonary abnormality."

_ORDER = {finding.label: rank for rank, finding in enumerate(FINDINGS)}


_HEART = {"heart", "heart and lungs"}
_LUNGS = {"lungs", "pleura", "heart and lungs"}

_ANYTHING = _HEART | _LUNGS
"""Regions of whatever isn't in the vocabulary."""


def report_of(findings: Sequence[LocatedFinding], unlocated: Collection[str] = ()) -> ReportText:
    """Return the report of these findings, in the vocabulary's order and right before left.

    Unknown isn't normal: heart or lungs are called normal only if nothing there is located or unlocated.

    Args:
        findings: with their boxes. Without any, and with nothing unlocated, the image is normal.
        unlocated: what the image shows, or may show, besides: labels of the vocabulary, and ``OTHER``.

    Raises:
        ValueError: if there are only unlocated findings, of which nothing can be said.
    """
    located = in_order(findings)
    if unlocated and not located:
        raise ValueError("nothing can be said of an image that has only unlocated findings")
    return ReportText(_findings(located, unlocated), located, _impression(located))


def in_order(findings: Sequence[LocatedFinding]) -> tuple[LocatedFinding, ...]:
    """Sort findings in the vocabulary's order, right before left, top to bottom."""
    return tuple(sorted(findings, key=_rank))


def corpus() -> Iterator[str]:
    """Yield every sentence and term that ``report_of`` can write, to train a tokenizer on."""
    yield "FINDINGS: "
    yield "\nLOCATIONS: none"
    yield "\nIMPRESSION: "
    yield from (HEART_ENLARGED, HEART_NORMAL, LUNGS_CLEAR, NOTHING_FOUND)
    for term, (finding, side) in TERMS.items():
        yield f"; {term} "
        for box in _specimens():
            located = LocatedFinding(finding, side, box)
            yield f" {_sentence(located)}"
            yield f" {_conclusion(located)}"


def _rank(located: LocatedFinding) -> tuple[int, bool, int, int]:
    return (
        _ORDER[located.finding.label],
        located.laterality == "left",
        located.box.ymin,
        located.box.xmin,
    )


def _findings(located: Sequence[LocatedFinding], unlocated: Collection[str]) -> str:
    regions = {one.finding.region for one in located} | {BY_LABEL[one].region for one in unlocated if one != OTHER}
    abnormal = regions | _ANYTHING if OTHER in unlocated else regions
    enlarged = [HEART_ENLARGED] if any(one.finding.label == "cardiomegaly" for one in located) else []
    normal_heart = [HEART_NORMAL] if not _HEART & abnormal else []
    others = [_sentence(one) for one in located if one.finding.label != "cardiomegaly"]
    clear_lungs = [LUNGS_CLEAR] if not _LUNGS & abnormal else []
    return " ".join(dict.fromkeys([*enlarged, *normal_heart, *others, *clear_lungs]))


def _impression(located: Sequence[LocatedFinding]) -> str:
    return " ".join(dict.fromkeys(map(_conclusion, located))) or NOTHING_FOUND


def _sentence(located: LocatedFinding) -> str:
    finding, side = located.finding, located.laterality
    match finding.label:
        case "cardiomegaly":
            return HEART_ENLARGED
        case "pleural effusion":
            return f"There is a {_size(located.box)} {side} pleural effusion."
        case "interstitial pattern":
            return f"There is an interstitial pattern in the {side} lung."
        case label if finding.region == "lungs" and side:
            return f"{_there(finding, label)} in the {side} {_zone(located.box)} zone."
        case _:
            return f"{_there(finding, _sided(finding, side))}."


def _there(finding: Finding, name: str) -> str:
    match finding.number:
        case "plural":
            return f"There are {name}"
        case "uncountable":
            return f"There is {name}"
        case "singular":
            return f"There is {'an' if name[0] in 'aeiou' else 'a'} {name}"


def _conclusion(located: LocatedFinding) -> str:
    term = _sided(located.finding, located.laterality)
    return f"{term[0].upper()}{term[1:]}."


def _sided(finding: Finding, side: Laterality | None) -> str:
    return f"{side} {finding.label}" if side else finding.label


def _zone(box: LocBox) -> str:
    """Return the third of the lung field that contains the box's centre, on an image that the chest fills."""
    ymin, _, ymax, _ = box.fractions()
    centre = (ymin + ymax) / 2
    return ZONES[(centre > 0.36) + (centre > 0.53)]


def _size(box: LocBox) -> str:
    """Return a word for the share of the image's height that the box takes."""
    ymin, _, ymax, _ = box.fractions()
    return SIZES[(ymax - ymin > 0.18) + (ymax - ymin > 0.32)]


def _specimens() -> tuple[LocBox, ...]:
    """Return boxes that cover each zone and each size."""
    return (
        LocBox.of_fractions(0.20, 0.2, 0.30, 0.3),
        LocBox.of_fractions(0.32, 0.2, 0.58, 0.3),
        LocBox.of_fractions(0.40, 0.2, 0.90, 0.3),
    )
