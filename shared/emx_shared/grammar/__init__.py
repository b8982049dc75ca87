"""Report text: parsing, writing and ending it, all by the one grammar in ``report.lark``."""

from emx_shared.grammar.box_2d import Box2dNotation, Frame
from emx_shared.grammar.loc import LocNotation
from emx_shared.grammar.notation import Notation, Span
from emx_shared.grammar.parts import LOC_BINS, LocatedFinding, LocBox, MalformedReport, ReportText

LOC = LocNotation()
"""The notation of training targets and of results."""

parse = LOC.parse

__all__ = [
    "LOC",
    "LOC_BINS",
    "Box2dNotation",
    "Frame",
    "LocBox",
    "LocNotation",
    "LocatedFinding",
    "MalformedReport",
    "Notation",
    "ReportText",
    "Span",
    "parse",
]
