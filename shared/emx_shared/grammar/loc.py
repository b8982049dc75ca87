"""LOCATIONS in location tokens: ``mass left <loc0250><loc0612><loc0340><loc0709>; …`` or ``none``."""

import re
from collections.abc import Sequence
from functools import cached_property

from lark import Token, Tree

from emx_shared.contracts.findings import TERMS
from emx_shared.grammar.notation import BoxNotation, end_term, for_llguidance, grammar, text_of
from emx_shared.grammar.parts import LOC_BINS, LocatedFinding, LocBox

_LOC = re.compile(r"<loc(\d{4})>")
_OPEN = re.compile(r"(?:<loc\d{4}>)*\Z")


class LocNotation(BoxNotation):
    """The notation with location tokens, which ``str(ReportText)`` writes."""

    name = "loc"

    @cached_property
    def lark(self) -> str:
        """Return the grammar of report texts, with location tokens as characters."""
        return grammar(self.name, loc=r"/<loc(0[0-9]{3}|10[01][0-9]|102[0-3])>/")

    @cached_property
    def lark_for_decoding(self) -> str:
        """Return the grammar with location tokens as single tokens; as text, the tokenizer would split them."""
        locations = " | ".join(f"<loc{number:04d}>" for number in range(LOC_BINS))
        return for_llguidance(grammar(self.name, loc=locations))

    def lark_of_tokens(self, first: int) -> str:
        """Return the grammar with location tokens by their ids, which are consecutive from ``first``."""
        return for_llguidance(grammar(self.name, loc=f"<[{first}-{first + LOC_BINS - 1}]>"))

    def _located(self, node: Tree[Token]) -> LocatedFinding:
        text = text_of(node)
        finding, laterality = TERMS[text[: text.index(" <loc")]]
        ymin, xmin, ymax, xmax = (int(v) for v in _LOC.findall(text))
        return LocatedFinding(finding, laterality, LocBox(ymin, xmin, ymax, xmax))

    def complete_locations(self, text: str) -> int:
        """Count the complete boxes, four location tokens each."""
        return text.count("<loc") // 4

    def _end_locations(self, begun: str) -> str:
        if begun.endswith(";"):
            return " " + self._end_term("", first=False)
        last = begun.rpartition("; ")[2]
        box = box_so_far(last)
        return _end_box(box) if "<" in last else self._end_term(last, first=last == begun)

    def _end_term(self, begun: str, first: bool) -> str:
        if first and "none".startswith(begun):
            return "none"[len(begun) :]
        return end_term(begun, " ") + _end_box([])


def box_so_far(text: str) -> list[int]:
    """Return the bins of the box that a text ends with, up to four."""
    found = _OPEN.search(text, max(len(text) - 4 * len("<loc0000>"), 0))
    return [int(v) for v in _LOC.findall(found.group())] if found else []


def allowed_bins(box_so_far: Sequence[int]) -> range:
    """Return the bins that may follow in a box (ymin xmin ymax xmax) so that min < max."""
    if len(box_so_far) < 2:
        return range(LOC_BINS - 1)
    return range(box_so_far[len(box_so_far) - 2] + 1, LOC_BINS)


def _end_box(begun: list[int]) -> str:
    box = list(begun)
    while len(box) < 4:
        box.append(allowed_bins(box)[0])
    return "".join(f"<loc{v:04d}>" for v in box[len(begun) :])
