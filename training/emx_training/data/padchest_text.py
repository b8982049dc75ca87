"""English sentences for PadChest's codes: ``['atelectasis', 'pleural effusion', 'loc basal', 'loc left']``.

Each label has a row in ``padchest_phrases.csv``: its noun phrase (``{side}`` is where right or left goes), the
phrase for both sides, whether it is singular, plural or uncountable, which of the sentence's places can be said of
it, and its weight: an impression begins with what is urgent, and leaves out what is minor beside anything else.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from emx_shared.contracts.findings import FINDINGS, Finding
from emx_training.data.padchest_places import Side, enumerated, place_phrase, sides_of, sides_of_lobes, united
from emx_training.data.phantom_reports import HEART_ENLARGED, HEART_NORMAL

NO_FINDING = frozenset({"normal", "unchanged", "exclude", "suboptimal study", ""})
"""Labels that name nothing to be seen."""

LIMITED = "The study is of limited quality."

_FINDING: dict[str, Finding] = {label: finding for finding in FINDINGS for label in finding.padchest}
_WEIGHTS = ("urgent", "lasting", "minor")


@dataclass(frozen=True)
class _Phrase:
    """A row of the table."""

    label: str
    number: str
    phrase: str
    on_both_sides: str
    where: str
    weight: str


def _read() -> dict[str, _Phrase]:
    table = Path(__file__).with_name("padchest_phrases.csv")
    with table.open(encoding="utf-8", newline="") as stream:
        return {row["label"]: _Phrase(**row) for row in csv.DictReader(stream)}


_PHRASES = _read()
_TOGETHER = [tuple(label.split(" + ")) for label in _PHRASES if " + " in label]
"""Labels that name one thing where they stand in one sentence."""


@dataclass(frozen=True)
class Mention:
    """A label in its sentence.

    Attributes:
        labels: the label, or those that name one thing together.
        side: of the patient, as far as it is known.
        places: of the sentence.
    """

    labels: tuple[str, ...]
    side: Side | None
    places: tuple[str, ...]

    @property
    def weight(self) -> int:
        """The place in an impression: 0 is urgent, 2 can be left out."""
        return _WEIGHTS.index(self._row.weight)

    @property
    def finding(self) -> Finding | None:
        """What it is in the vocabulary, or None if the vocabulary hasn't got it."""
        return _FINDING.get(self.labels[0])

    @property
    def _row(self) -> _Phrase:
        return _PHRASES[" + ".join(self.labels)]

    @property
    def place(self) -> str:
        """Return where it is, with the preposition; empty if nothing is known, or the phrase says so itself."""
        if self._row.where == "side" and "{side}" in self._row.phrase:
            return ""
        return place_phrase(self._row.where, self.places, self.side)

    @property
    def plural(self) -> bool:
        """Whether *are* goes with it."""
        two = self.side == "both" and self._row.on_both_sides
        return self._row.number == "plural" or bool(two and self._row.number == "singular")

    def named(self) -> str:
        """Return the noun phrase with its article."""
        name = self._name(self.side)
        if self.plural or self._row.number == "uncountable":
            return name
        return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"

    def concluded(self, side: Side | None) -> str:
        """Return it as a sentence of an impression."""
        name = self._name(side)
        if "{side}" not in self._row.phrase and self._row.where == "lung" and side:
            name = f"{'bilateral' if side == 'both' else f'{side}-sided'} {name}"
        return f"{name[0].upper()}{name[1:]}."

    def _name(self, side: Side | None) -> str:
        if side == "both" and self._row.on_both_sides:
            return self._row.on_both_sides
        return self._row.phrase.replace("{side} ", f"{side} " if side in ("right", "left") else "")


def finding_of(label: str) -> Finding | None:
    """Return the vocabulary's finding for a label of PadChest, or None if the vocabulary hasn't got it."""
    return _FINDING.get(label)


def mentions(sentence: Sequence[str]) -> list[Mention]:
    """Return what a sentence names, in its order. Labels that the table lacks are passed over.

    Args:
        sentence: labels, and places that begin with ``loc ``.
    """
    places = tuple(code.removeprefix("loc ") for code in sentence if code.startswith("loc "))
    labels = dict.fromkeys(code for code in sentence if code in _PHRASES)
    found: list[tuple[str, ...]] = []
    for pair in _TOGETHER:
        if labels.keys() >= set(pair):
            found.append(pair)
            labels = {label: None for label in labels if label not in pair}
    found = sorted([*found, *((label,) for label in labels)], key=lambda together: sentence.index(together[0]))
    return [Mention(together, _side(together, places, len(found)), places) for together in found]


def describe(found: Sequence[Mention]) -> list[str]:
    """Return FINDINGS' sentences for what one sentence of the source names: one for each place."""
    sentences: list[str] = []
    by_place: dict[str, list[Mention]] = {}
    for one in found:
        if one.labels == ("cardiomegaly",):
            sentences.append(HEART_ENLARGED)
        else:
            by_place.setdefault(one.place, []).append(one)
    for place, together in by_place.items():
        named = enumerated(list(dict.fromkeys(one.named() for one in together)))
        sentences.append(f"There {'are' if together[0].plural else 'is'} {f'{named} {place}'.rstrip()}.")
    return sentences


def conclude(found: Iterable[Mention]) -> list[str]:
    """Return the impression of a whole report: each thing once and without its place, urgent ones first."""
    found = sorted(found, key=lambda one: one.weight)
    major = [one for one in found if one.weight < 2] or found
    sides: dict[str, set[Side]] = {}
    for one in major:
        sides.setdefault(one.concluded(None), set()).update([one.side] if one.side else [])
    first = {one.concluded(None): one for one in reversed(major)}
    return [first[name].concluded(united(known)) for name, known in sides.items()]


def describe_normal(sentence: Sequence[str], found: Iterable[Mention]) -> str:
    """Return the sentence for ``normal`` with places; an empty one if nothing can be said.

    Args:
        sentence: the codes, ``normal`` first.
        found: what the whole report names. A part of the chest where anything is named isn't called normal.
    """
    if sentence[:1] != ["normal"]:
        return ""
    places = {code.removeprefix("loc ") for code in sentence if code.startswith("loc ")}
    if len(places) != 1 or not (part := _NORMAL.get(places.pop())):
        return ""
    text, regions = part
    return "" if any(one.finding and one.finding.region in regions for one in found) else text


_CIRCULATION = "heart and lungs"
_NORMAL: dict[str, tuple[str, tuple[str, ...]]] = {
    "cardiac": (HEART_NORMAL, ("heart", _CIRCULATION)),
    "pleural": ("The pleural spaces are clear.", ("pleura", _CIRCULATION)),
    "costophrenic angle": ("The costophrenic angles are clear.", ("pleura", _CIRCULATION)),
    "hilar": ("The hila are normal.", ("mediastinum", _CIRCULATION)),
    "aortic": ("The aorta is normal.", ("mediastinum",)),
    "tracheal": ("The trachea is normal.", ("mediastinum",)),
    "diaphragm": ("The diaphragm is normal.", ("diaphragm",)),
    "bone": ("The bones are normal.", ("bones",)),
}
"""What ``normal`` says of a part of the chest, and the regions whose findings would contradict it."""


def _side(labels: tuple[str, ...], places: Sequence[str], mentioned: int) -> Side | None:
    """Return the side of a mention: its label's own, else the places'.

    A lobe has its side. Right and left beside each other are both sides of a single mention; of several, nobody
    knows which is where.
    """
    row = _PHRASES[" + ".join(labels)]
    lobes = sides_of_lobes(places)
    if own := united(sides_of(labels)) or (united(lobes) if row.where == "lung" else None):
        return own
    known = lobes | sides_of(places)
    if "both" in known or len(known) < 2:
        return united(known)
    return "both" if mentioned == 1 and (row.on_both_sides or row.number != "singular") else None
