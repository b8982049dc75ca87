"""Report text: filling, parsing, writing and ending it, all by the one grammar in ``report.lark``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lark import Lark, Token, Tree
from lark.exceptions import LarkError

from shared.findings import TERMS, Finding, Laterality

LOC_BINS = 1024
"""Location tokens a dialect has for each axis: <loc0000> to <loc1023> (PaliGemma, Beyer et al. 2024)."""

LOC_TEXT = r"/<loc(0[0-9]{3}|10[01][0-9]|102[0-3])>/"
INCOMPLETE = "Incomplete."
"""The sentence that closes a section when the token budget ends before the model does."""

_GRAMMAR = (Path(__file__).parent / "report.lark").read_text(encoding="utf-8")
_LOCATIONS, _IMPRESSION = "\nLOCATIONS: ", "\nIMPRESSION: "
_OPENING = "FINDINGS: "
_LOC = re.compile(r"<loc(\d{4})>")


class MalformedReport(ValueError):
    """The text isn't a report of the grammar."""


@dataclass(frozen=True)
class LocBox:
    """A box in location bins, 0 to 1023 over the image as the model sees it; ymin < ymax and xmin < xmax."""

    ymin: int
    xmin: int
    ymax: int
    xmax: int

    def __post_init__(self) -> None:
        if not (0 <= self.ymin < self.ymax < LOC_BINS and 0 <= self.xmin < self.xmax < LOC_BINS):
            raise MalformedReport(f"not a box: {self.ymin} {self.xmin} {self.ymax} {self.xmax}")

    @classmethod
    def of_fractions(cls, ymin: float, xmin: float, ymax: float, xmax: float) -> "LocBox":
        """The nearest box in bins to one in fractions of the image's height and width (0 to 1)."""
        ylow, xlow = (min(max(round(v * (LOC_BINS - 1)), 0), LOC_BINS - 2) for v in (ymin, xmin))
        yhigh, xhigh = (min(max(round(v * (LOC_BINS - 1)), 1), LOC_BINS - 1) for v in (ymax, xmax))
        return cls(ylow, xlow, max(yhigh, ylow + 1), max(xhigh, xlow + 1))

    def fractions(self) -> tuple[float, float, float, float]:
        """(ymin, xmin, ymax, xmax) as fractions of the image's height and width."""
        ymin, xmin, ymax, xmax = (v / (LOC_BINS - 1) for v in (self.ymin, self.xmin, self.ymax, self.xmax))
        return ymin, xmin, ymax, xmax

    def __str__(self) -> str:
        return "".join(f"<loc{v:04d}>" for v in (self.ymin, self.xmin, self.ymax, self.xmax))


@dataclass(frozen=True)
class LocatedFinding:
    finding: Finding
    laterality: Laterality | None
    box: LocBox

    def __str__(self) -> str:
        side = f" {self.laterality}" if self.laterality else ""
        return f"{self.finding.label}{side} {self.box}"


@dataclass(frozen=True)
class ReportText:
    """A report's text in parts. ``str()`` writes it; ``parse`` reads it back."""

    findings: str
    locations: tuple[LocatedFinding, ...]
    impression: str

    def __str__(self) -> str:
        located = "; ".join(map(str, self.locations)) or "none"
        return f"{_OPENING}{self.findings}{_LOCATIONS}{located}{_IMPRESSION}{self.impression}"


def grammar(loc: str = LOC_TEXT) -> str:
    """The grammar in Lark's notation, with ``loc`` (a regular expression or a token range) for a location."""
    finding = " | ".join(f'"{term}"' for term in TERMS)
    return _GRAMMAR.replace("{finding}", finding).replace("{loc}", loc)


@cache
def _parser() -> Lark:
    return Lark(grammar(), parser="lalr", keep_all_tokens=True)


def parse(text: str) -> ReportText:
    """Read a report's text. Raises MalformedReport, without quoting the text, if the grammar doesn't hold."""
    try:
        tree = _parser().parse(text)
    except LarkError as error:
        raise MalformedReport(f"the text breaks the grammar ({type(error).__name__})") from None
    findings, locations, impression = (child for child in tree.children if isinstance(child, Tree))
    located = (child for child in locations.children if isinstance(child, Tree) and child.data == "location")
    return ReportText(_text(findings), tuple(_located(node) for node in located), _text(impression))


def _text(tree: Tree[Token]) -> str:
    return "".join(map(str, tree.scan_values(lambda value: isinstance(value, Token))))


def _located(node: Tree[Token]) -> LocatedFinding:
    text = _text(node)
    finding, laterality = TERMS[text[: text.index(" <loc")]]
    ymin, xmin, ymax, xmax = (int(v) for v in _LOC.findall(text))
    return LocatedFinding(finding, laterality, LocBox(ymin, xmin, ymax, xmax))


def allowed_bins(box_so_far: Sequence[int]) -> range:
    """The bins that may follow in a box (ymin xmin ymax xmax) so that it ends with min < max."""
    if len(box_so_far) < 2:
        return range(LOC_BINS - 1)
    return range(box_so_far[len(box_so_far) - 2] + 1, LOC_BINS)


def shortest_ending(partial: str) -> str:
    """The text that ends a report soonest, given what has been written of it (a prefix of a valid report).

    Sections that were never begun say that they are incomplete; a box that was begun gets its smallest end.
    """
    _, marker, impression = partial.partition(_IMPRESSION)
    if marker:
        return _end_prose(impression)
    _, marker, locations = partial.partition(_LOCATIONS)
    if marker:
        begun = _begun(locations, _IMPRESSION)
        located = _end_locations(locations) if not begun else ""
        return located + _IMPRESSION[len(begun) :] + INCOMPLETE
    if len(partial) < len(_OPENING):
        return _OPENING[len(partial) :] + INCOMPLETE + _LOCATIONS + "none" + _IMPRESSION + INCOMPLETE
    findings = partial[len(_OPENING) :]
    begun = _begun(findings, _LOCATIONS)
    prose = _end_prose(findings) if not begun else ""
    return prose + _LOCATIONS[len(begun) :] + "none" + _IMPRESSION + INCOMPLETE


def _begun(text: str, marker: str) -> str:
    """How much of ``marker`` the text already ends with; markers begin with a line break."""
    at = text.rfind("\n")
    return text[at:] if at >= 0 and marker.startswith(text[at:]) else ""


def _end_prose(prose: str) -> str:
    if not prose or prose.endswith(". "):
        return INCOMPLETE
    return "" if prose.endswith(".") else "."


def _end_locations(locations: str) -> str:
    if locations.endswith(";"):
        return " " + _end_term("", first=False)
    last = locations.rpartition("; ")[2]
    boxed = [int(v) for v in _LOC.findall(last)]
    return _end_box(boxed) if boxed else _end_term(last, first=last == locations)


def _end_term(begun: str, first: bool) -> str:
    if first and "none".startswith(begun):
        return "none"[len(begun) :]
    term = min((t for t in TERMS if (t + " ").startswith(begun)), key=len)
    return (term + " ")[len(begun) :] + _end_box([])


def _end_box(boxed: list[int]) -> str:
    box = list(boxed)
    while len(box) < 4:
        box.append(allowed_bins(box)[0])
    return "".join(f"<loc{v:04d}>" for v in box[len(boxed) :])
