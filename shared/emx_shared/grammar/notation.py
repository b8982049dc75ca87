"""The part that all ways to write LOCATIONS share: the report around it."""

import re
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import ClassVar

from lark import Lark, Token, Tree
from lark.exceptions import LarkError

from emx_shared.contracts.findings import TERMS
from emx_shared.grammar.parts import (
    IMPRESSION,
    INCOMPLETE,
    LOCATIONS,
    OPENING,
    LocatedFinding,
    MalformedReport,
    ReportText,
)

Span = tuple[int, int]
"""A range of characters of a report's text: the first, and the one after the last."""


def grammar(name: str, **holes: str) -> str:
    """Build the grammar of a report for Lark, with the LOCATIONS of ``{name}.lark`` and its holes filled."""
    finding = " | ".join(f'"{term}"' for term in TERMS)
    text = _file("report").replace("{finding}", finding) + "\n" + _file(name)
    for hole, filling in holes.items():
        text = text.replace(f"{{{hole}}}", filling)
    return text


def for_llguidance(lark: str) -> str:
    """Write repetitions as ``{0,15}``: llguidance before 1.8, which vLLM has, doesn't know Lark's ``~0..15``."""
    return re.sub(r"~(\d+)\.\.(\d+)", r"{\1,\2}", lark)


def _file(name: str) -> str:
    return (Path(__file__).parent / f"{name}.lark").read_text(encoding="utf-8")


@cache
def _parser(lark: str) -> Lark:
    return Lark(lark, parser="lalr", keep_all_tokens=True, propagate_positions=True)


class BoxNotation(ABC):
    """A way to write boxes, and so LOCATIONS, in a report's text.

    Attributes:
        name: of its grammar file, and of the ``BoxDecoding`` that uses it.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def lark(self) -> str:
        """Return the grammar of report texts."""

    @property
    def prose(self) -> str:
        """Return the regular expression of FINDINGS and of IMPRESSION."""
        return _parser(self.lark).get_terminal("PROSE").pattern.to_regexp()

    @property
    def lark_for_decoding(self) -> str:
        """Return the grammar for llguidance, for any tokenizer that suits the notation."""
        return for_llguidance(self.lark)

    @abstractmethod
    def _located(self, node: Tree[Token]) -> LocatedFinding:
        """Read a ``location`` of the grammar. Raises MalformedReport if its numbers are no valid box."""

    @abstractmethod
    def _end_locations(self, begun: str) -> str:
        """Return the shortest text that ends LOCATIONS, of which ``begun`` is already written."""

    @abstractmethod
    def complete_locations(self, text: str) -> int:
        """Count the complete locations in the beginning of a report."""

    def parse(self, text: str) -> ReportText:
        """Parse a report's text. Raises MalformedReport, without quoting the text, if it breaks the grammar."""
        findings, locations, impression = self._sections(text)
        return ReportText(findings, tuple(map(self._located, locations)), impression)

    def parse_usable(self, text: str) -> tuple[ReportText, int]:
        """Parse a report's text, leaving out locations whose numbers are no valid box.

        Returns:
            The report, and how many locations were left out.

        Raises:
            MalformedReport: if the text breaks the grammar.
        """
        findings, locations, impression = self._sections(text)
        usable = []
        for node in locations:
            try:
                usable.append(self._located(node))
            except MalformedReport:
                continue
        return ReportText(findings, tuple(usable), impression), len(locations) - len(usable)

    def finding_spans(self, text: str) -> list[tuple[Span, ...]]:
        """Find the text that decides on each location: that there is one more, and which finding it is."""
        spans: list[tuple[Span, ...]] = []
        end = 0
        for node in self._sections(text)[1]:
            term = next(child for child in node.children if isinstance(child, Tree) and child.data == "finding")
            box = next(child for child in node.children if isinstance(child, Tree) and child.data == "box")
            begin, (low, high) = end or node.meta.start_pos, (term.meta.start_pos, term.meta.end_pos)
            # If the box precedes the term, it separates the text that says there is one more from the term.
            spans.append(
                ((begin, high),) if box.meta.start_pos > low else ((begin, box.meta.start_pos), (low, high))
            )
            end = node.meta.end_pos
        return spans

    def _sections(self, text: str) -> tuple[str, list[Tree[Token]], str]:
        try:
            tree = _parser(self.lark).parse(text)
        except LarkError as error:
            raise MalformedReport(f"the text breaks the grammar ({type(error).__name__})") from None
        findings, impression = (
            child for child in tree.children if isinstance(child, Token) and child.type == "PROSE"
        )
        (locations,) = (child for child in tree.children if isinstance(child, Tree))
        located = [child for child in locations.children if isinstance(child, Tree) and child.data == "location"]
        return str(findings), located, str(impression)

    def shortest_ending(self, partial: str) -> str:
        """Return the shortest text that ends a report.

        Sections that were not begun say that they are incomplete; a box that was begun gets its smallest end.

        Args:
            partial: the report so far, a prefix of a valid one.
        """
        _, marker, impression = partial.partition(IMPRESSION)
        if marker:
            return _end_prose(impression)
        nothing = self._end_locations("")
        _, marker, locations = partial.partition(LOCATIONS)
        if marker:
            begun = _begun(locations, IMPRESSION)
            located = self._end_locations(locations) if not begun else ""
            return located + IMPRESSION[len(begun) :] + INCOMPLETE
        if len(partial) < len(OPENING):
            return OPENING[len(partial) :] + INCOMPLETE + LOCATIONS + nothing + IMPRESSION + INCOMPLETE
        findings = partial[len(OPENING) :]
        begun = _begun(findings, LOCATIONS)
        prose = _end_prose(findings) if not begun else ""
        return prose + LOCATIONS[len(begun) :] + nothing + IMPRESSION + INCOMPLETE


def text_of(tree: Tree[Token]) -> str:
    """Return the text that a part of a parsed report was read from."""
    return "".join(map(str, tree.scan_values(lambda value: isinstance(value, Token))))


def _begun(text: str, marker: str) -> str:
    """Return the part of ``marker`` that the text already ends with; markers begin with a line break."""
    at = text.rfind("\n")
    return text[at:] if at >= 0 and marker.startswith(text[at:]) else ""


def _end_prose(prose: str) -> str:
    if prose.endswith("<"):  # before a number, which isn't ours to make up
        return " " + INCOMPLETE
    if not prose or prose.endswith(" "):
        return INCOMPLETE
    return "" if prose.endswith(tuple(".!?")) else "."


def end_term(begun: str, after: str) -> str:
    """Return the shortest rest of a term of which ``begun`` is written, and of the text after the term."""
    term = min((term for term in TERMS if (term + after).startswith(begun)), key=len)
    return (term + after)[len(begun) :]
