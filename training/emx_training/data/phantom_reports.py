"""The true report of a phantom: one fixed text for each set of located findings.

The text depends only on the findings and their boxes, so that greedy decoding has one right answer.
"""

from collections.abc import Iterator, Sequence

from emx_shared.contracts.findings import FINDINGS, TERMS, Finding, Laterality
from emx_shared.grammar import LocatedFinding, LocBox, ReportText

SIDES: tuple[Laterality, ...] = ("right", "left")
ZONES = ("upper", "mid", "lower")
SIZES = ("small", "moderate", "large")

HEART_ENLARGED = "The heart is enlarged."
HEART_NORMAL = "The heart size is normal."
LUNGS_CLEAR = "The lungs and pleural spaces are clear."
NOTHING_FOUND = "No acute cardiopulmonary abnormality."

_ORDER = {finding.label: rank for rank, finding in enumerate(FINDINGS)}


def report_of(findings: Sequence[LocatedFinding]) -> ReportText:
    """Return the report of these findings, in the vocabulary's order and right before left."""
    located = in_order(findings)
    return ReportText(_findings(located), located, _impression(located))


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


def _findings(located: Sequence[LocatedFinding]) -> str:
    enlarged = any(one.finding.label == "cardiomegaly" for one in located)
    others = [_sentence(one) for one in located if one.finding.label != "cardiomegaly"]
    return " ".join([HEART_ENLARGED if enlarged else HEART_NORMAL, *(others or [LUNGS_CLEAR])])


def _impression(located: Sequence[LocatedFinding]) -> str:
    return " ".join(_conclusion(one) for one in located) or NOTHING_FOUND


def _sentence(located: LocatedFinding) -> str:
    side = located.laterality
    match located.finding.label:
        case "cardiomegaly":
            return HEART_ENLARGED
        case "pleural effusion":
            return f"There is a {_size(located.box)} {side} pleural effusion."
        case "pneumothorax":
            return f"There is a {side} pneumothorax."
        case "nodule" | "mass" as label:
            return f"There is a {label} in the {side} {_zone(located.box)} zone."
        case "interstitial pattern":
            return f"There is an interstitial pattern in the {side} lung."
        case "rib fracture" | "hiatal hernia":
            return f"There is a {_sided(located.finding, side)}."
        case _ if side:
            return f"There is {located.finding.label} in the {side} {_zone(located.box)} zone."
        case label:
            return f"There is {label}."


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
