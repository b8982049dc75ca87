"""The prose of FINDINGS and of IMPRESSION: what it may hold, and its sentences."""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

from emx_shared.grammar.loc import LocNotation
from emx_shared.grammar.notation import Span

_BREAK = re.compile(r"""(?<=[.!?])["'”’)\]]*(\s+)(?=["'“‘(\[]*[^\W_a-z])""")
_NO_END = re.compile(
    r"(?:^|[\s(\[])(?:approx|ca|cf|dr|drs|mr|mrs|ms|st|vs|e\.g|i\.e|incl|resp|fig|[A-Z])\.$|^\(?\d{1,2}\.$",
    re.IGNORECASE,
)
"""Ends with a full stop that ends no sentence: of an abbreviation, or of a number in a list."""


def is_prose(text: str) -> bool:
    """Return whether a section of a report can hold this text as it is, to the letter."""
    return _prose().fullmatch(text) is not None


def as_prose(text: str) -> str:
    """Put a text on one line, composed (NFC) and without invisible characters.

    Nothing that can be read is changed, so that the result may still hold what no report can (``is_prose``).
    """
    visible = (each for each in unicodedata.normalize("NFC", text) if unicodedata.category(each) != "Cf")
    return " ".join("".join(visible).split())


def first_refused(text: str) -> str | None:
    """Return the first character that no report can hold where it stands; None if all of the text can be held.

    Args:
        text: as ``as_prose`` returns it.
    """
    held = _prose().match(text)
    return text[held.end() if held else 0 :].lstrip()[:1] or None


def sentences(text: str) -> Iterator[Span]:
    """Yield where each sentence of a text is, without the space around it.

    A sentence ends with its mark where a capital or a digit follows. Decimals, common abbreviations and the
    numbers of a list don't end one.
    """
    begin = 0
    for found in _BREAK.finditer(text):
        if not _NO_END.search(text[begin : found.start(1)]):
            yield begin, found.start(1)
            begin = found.end(1)
    if text[begin:].strip():
        yield begin, len(text)


@cache
def _prose() -> re.Pattern[str]:
    return re.compile(LocNotation().prose)
