"""Report text: parsing, writing and ending it, all by the one grammar in ``report.lark``."""

from shared.grammar.box_2d import Box2dNotation, Frame
from shared.grammar.loc import LocNotation
from shared.grammar.notation import Notation, Span
from shared.grammar.parts import (
    LOC_BINS,
    LocatedFinding,
    LocBox,
    MalformedReport,
    ReportText,
)

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
