"""Parses, writes and ends the text of reports, all by the one grammar in ``report.lark``."""

from emx_shared.grammar.box_2d import Box2dNotation, ImageFrame
from emx_shared.grammar.loc import LocNotation
from emx_shared.grammar.notation import BoxNotation, Span
from emx_shared.grammar.parts import LOC_BINS, LOCATIONS, LocatedFinding, LocBox, MalformedReport, ReportText
from emx_shared.grammar.prose import as_prose, first_refused, is_prose, sentences

LOC = LocNotation()
"""The notation of training targets and of results."""

parse = LOC.parse

__all__ = [
    "LOC",
    "LOCATIONS",
    "LOC_BINS",
    "Box2dNotation",
    "BoxNotation",
    "ImageFrame",
    "LocBox",
    "LocNotation",
    "LocatedFinding",
    "MalformedReport",
    "ReportText",
    "Span",
    "as_prose",
    "first_refused",
    "is_prose",
    "parse",
    "sentences",
]
