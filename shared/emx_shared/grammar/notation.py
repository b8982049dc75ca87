"""What every way to write LOCATIONS has in common: the report around it."""

from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path

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
"""Characters of a report's text, from the first to before the last."""


def grammar(name: str, **holes: str) -> str:
    """The grammar of a report in Lark's notation, with the LOCATIONS of ``{name}.lark``, and its holes filled."""
    finding = " | ".join(f'"{term}"' for term in TERMS)
    text = _file("report").replace("{finding}", finding) + "\n" + _file(name)
    for hole, filling in holes.items():
        text = text.replace(f"{{{hole}}}", filling)
    return text


def _file(name: str) -> str:
    return (Path(__file__).parent / f"{name}.lark").read_text(encoding="utf-8")


@cache
def _parser(lark: str) -> Lark:
    return Lark(lark, parser="lalr", keep_all_tokens=True, propagate_positions=True)


class Notation(ABC):
    """A way to write LOCATIONS, and so a report."""

    @property
    @abstractmethod
    def lark(self) -> str:
        """The grammar of report texts."""

    @property
    def lark_for_decoding(self) -> str:
        """The same for llguidance and any tokenizer that the notation suits."""
        return self.lark

    @abstractmethod
    def _located(self, node: Tree[Token]) -> LocatedFinding:
        """A ``location`` of the grammar. Raises MalformedReport where its numbers are no box."""

    @abstractmethod
    def _end_locations(self, begun: str) -> str:
        """The shortest text that ends LOCATIONS, of which this has been written."""

    @abstractmethod
    def whole(self, text: str) -> int:
        """How many locations have been written to their ends, in the beginning of a report."""

    def parse(self, text: str) -> ReportText:
        """Read a report's text. Raises MalformedReport, without quoting the text, if the grammar doesn't hold."""
        findings, locations, impression = self._sections(text)
        return ReportText(text_of(findings), tuple(map(self._located, locations)), text_of(impression))

    def parse_usable(self, text: str) -> tuple[ReportText, int]:
        """The same, leaving out locations whose numbers are no box; and how many these are."""
        findings, locations, impression = self._sections(text)
        usable = []
        for node in locations:
            try:
                usable.append(self._located(node))
            except MalformedReport:
                continue
        return ReportText(text_of(findings), tuple(usable), text_of(impression)), len(locations) - len(usable)

    def naming(self, text: str) -> list[tuple[Span, ...]]:
        """Where a report says that one more finding is located, and which: for each location."""
        spans: list[tuple[Span, ...]] = []
        end = 0
        for node in self._sections(text)[1]:
            term = next(child for child in node.children if isinstance(child, Tree) and child.data == "finding")
            box = next(child for child in node.children if isinstance(child, Tree) and child.data == "box")
            begin, (low, high) = end or node.meta.start_pos, (term.meta.start_pos, term.meta.end_pos)
            # A box that stands before the term parts what says that there is one more from what says which.
            spans.append(
                ((begin, high),) if box.meta.start_pos > low else ((begin, box.meta.start_pos), (low, high))
            )
            end = node.meta.end_pos
        return spans

    def _sections(self, text: str) -> tuple[Tree[Token], list[Tree[Token]], Tree[Token]]:
        try:
            tree = _parser(self.lark).parse(text)
        except LarkError as error:
            raise MalformedReport(f"the text breaks the grammar ({type(error).__name__})") from None
        findings, locations, impression = (child for child in tree.children if isinstance(child, Tree))
        located = [child for child in locations.children if isinstance(child, Tree) and child.data == "location"]
        return findings, located, impression

    def shortest_ending(self, partial: str) -> str:
        """The text that ends a report soonest, given what has been written of it (a prefix of a valid report).

        Sections that were never begun say that they are incomplete; a box that was begun gets its smallest end.
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
    return "".join(map(str, tree.scan_values(lambda value: isinstance(value, Token))))


def _begun(text: str, marker: str) -> str:
    """How much of ``marker`` the text already ends with; markers begin with a line break."""
    at = text.rfind("\n")
    return text[at:] if at >= 0 and marker.startswith(text[at:]) else ""


def _end_prose(prose: str) -> str:
    if not prose or prose.endswith(". "):
        return INCOMPLETE
    return "" if prose.endswith(".") else "."


def end_term(begun: str, after: str) -> str:
    """The shortest rest of a term and of what comes after it."""
    term = min((term for term in TERMS if (term + after).startswith(begun)), key=len)
    return (term + after)[len(begun) :]
