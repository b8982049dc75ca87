"""Where something is, in English, for PadChest's places: ``['loc basal', 'loc left']`` is *at the left base*.

Each place has a row in ``padchest_places.csv`` with the group that it belongs to, and its phrase on one side
(``{side}``), on a side that isn't known, and on both. What a label says decides which groups can be said of it: a
nodule is in a lobe, a fracture in a bone.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

Side = Literal["right", "left", "both"]


class _Phrase(NamedTuple):
    """A place in English. Empty where it says too little."""

    on_one_side: str
    side_unknown: str
    on_both_sides: str

    def of(self, side: Side | None) -> str:
        if side is None:
            return self.side_unknown
        return self.on_both_sides if side == "both" else self.on_one_side.format(side=side)


_NOWHERE = _Phrase("", "", "")


@dataclass(frozen=True)
class _Where:
    """Which groups of places can be said of a label, the most exact first, and what its bare side is called."""

    groups: tuple[tuple[str, ...], ...] = ()
    side: _Phrase = _NOWHERE


def _read() -> dict[str, dict[str, _Phrase]]:
    groups: dict[str, dict[str, _Phrase]] = {}
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            phrase = _Phrase(row["on_one_side"], row["side_unknown"], row["on_both_sides"])
            groups.setdefault(row["group"], {})[row["place"]] = phrase
    return groups


_GROUPS = _read()

_ON_SIDE = _Phrase("on the {side}", "", "on both sides")
_LUNGS = (("lobe",), ("zone",), ("diffuse",), ("wide",))
_WHERE = {
    "none": _Where(),
    "side": _Where(side=_ON_SIDE),
    "toward": _Where(side=_Phrase("to the {side}", "", "")),
    "lung": _Where(_LUNGS, _Phrase("in the {side} lung", "", "in both lungs")),
    "nodes": _Where((("zone",), ("mediastinum",), ("node",)), _ON_SIDE),
    "body": _Where((("bone", "spine"), ("node", "outside"), *_LUNGS), _ON_SIDE),
    "spine": _Where((("spine",),)),
    "vein": _Where((("vein",),)),
    "tube": _Where((("tube in the stomach",), ("tube below the diaphragm",), ("tube in the esophagus",))),
}
KINDS = tuple(_WHERE)
"""What can be said of a label's place: the column ``where`` of ``padchest_phrases.csv``."""

_SIDE_OF_LOBE = {"middle lobe": "right", "lingula": "left"}


def place_phrase(kind: str, places: Iterable[str], side: Side | None) -> str:
    """Return where something is, with the preposition; empty if nothing can be said.

    Args:
        kind: one of ``KINDS``.
        places: PadChest's, without ``loc``.
        side: of the patient, as far as it is known.
    """
    where = _WHERE[kind]
    for names in where.groups:
        known = {place: phrase for name in names for place, phrase in _GROUPS[name].items()}
        own: dict[str, Side | None] = {
            place: "both" if "bilateral" in place else side for place in map(_unsided, places) if place in known
        }
        said = dict.fromkeys(known[place].of(its_side) for place, its_side in own.items())
        if text := enumerated(list(filter(None, said))):
            return text
    return where.side.of(side)


def sides_of(texts: Iterable[str]) -> set[Side]:
    """Return the sides that labels or places name."""
    words = {word for text in texts for word in text.split()}
    both: set[Side] = {"both"} if words & {"both", "bilateral"} else set()
    right: set[Side] = {"right"} if "right" in words else set()
    left: set[Side] = {"left"} if "left" in words else set()
    return both | right | left


def sides_of_lobes(places: Iterable[str]) -> set[Side]:
    """Return the sides of those places that are lobes: there is one middle lobe, on the right."""
    return sides_of(_SIDE_OF_LOBE.get(place, place) for place in places if place in _GROUPS["lobe"])


def united(sides: set[Side]) -> Side | None:
    """Return sides as one: both if there are several, None if there is none."""
    if "both" in sides or len(sides) > 1:
        return "both"
    return next(iter(sides), None)


def enumerated(words: Sequence[str]) -> str:
    """Join words with commas and *and*."""
    if len(words) < 3:
        return " and ".join(words)
    return f"{', '.join(words[:-1])}, and {words[-1]}"


def _unsided(place: str) -> str:
    """Return the place that the table knows: ``right costophrenic angle`` is a costophrenic angle."""
    side, _, rest = place.partition(" ")
    sided = side in ("right", "left", "bilateral") and rest in ("costophrenic angle", "hypochondrium")
    return rest if sided else place
