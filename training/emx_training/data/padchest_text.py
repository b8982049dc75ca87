"""English sentences for PadChest's codes: ``['atelectasis', 'pleural effusion', 'loc basal', 'loc left']``.

Each label has a row in ``padchest_phrases.csv``: its noun phrase (``{side}`` is where right or left goes), the
phrase for both sides, whether it is singular, plural or uncountable, which of the sentence's places can be said of
it, and its weight: an impression begins with what is urgent, and leaves out what is minor beside anything else.
"""

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from emx_shared.contracts.findings import FINDINGS, Finding
from emx_training.data.phantom_reports import HEART_ENLARGED, HEART_NORMAL

Side = Literal["right", "left", "both"]

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
        return _WHERE[self._row.where](self.places, self.side)

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
        named = _list(list(dict.fromkeys(one.named() for one in together)))
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
    return [first[name].concluded(_united(known)) for name, known in sides.items()]


def describe_normal(sentence: Sequence[str]) -> str:
    """Return the sentence for ``normal`` with places, or an empty one if nothing can be said."""
    places = {code.removeprefix("loc ") for code in sentence if code.startswith("loc ")}
    known = {text for place, text in _NORMAL.items() if place in places}
    return known.pop() if len(known) == 1 and places <= _NORMAL.keys() else ""


def contradicts(normal: str, found: Iterable[Mention]) -> bool:
    """Tell whether what is named leaves it open that the sentence of ``describe_normal`` is true."""
    regions = {one.finding.region for one in found if one.finding}
    return any(region in _REGIONS[normal] for region in regions)


_NORMAL = {
    "cardiac": HEART_NORMAL,
    "pleural": "The pleural spaces are clear.",
    "costophrenic angle": "The costophrenic angles are clear.",
    "hilar": "The hila are normal.",
    "aortic": "The aorta is normal.",
    "tracheal": "The trachea is normal.",
    "diaphragm": "The diaphragm is normal.",
    "bone": "The bones are normal.",
}
_REGIONS = {
    HEART_NORMAL: {"heart", "heart and lungs"},
    "The pleural spaces are clear.": {"pleura", "heart and lungs"},
    "The costophrenic angles are clear.": {"pleura", "heart and lungs"},
    "The hila are normal.": {"mediastinum", "heart and lungs"},
    "The aorta is normal.": {"mediastinum"},
    "The trachea is normal.": {"mediastinum"},
    "The diaphragm is normal.": {"diaphragm"},
    "The bones are normal.": {"bones"},
}


def _list(words: Sequence[str]) -> str:
    if len(words) < 3:
        return " and ".join(words)
    return f"{', '.join(words[:-1])}, and {words[-1]}"


def _side(labels: tuple[str, ...], places: Sequence[str], mentioned: int) -> Side | None:
    """Return the side of a mention: its label's own, else the places'.

    A lobe has its side. Right and left beside each other are both sides of a single mention; of several, nobody
    knows which is where.
    """
    row = _PHRASES[" + ".join(labels)]
    lobes = _sides(_SIDE_OF_LOBE.get(place, place) for place in places if place in _LOBES)
    if own := _united(_sides(labels)) or (_united(lobes) if row.where == "lung" else None):
        return own
    known = lobes | _sides(places)
    if "both" in known or len(known) < 2:
        return _united(known)
    return "both" if mentioned == 1 and (row.on_both_sides or row.number != "singular") else None


_SIDE_OF_LOBE = {"middle lobe": "right", "lingula": "left"}


def _sides(texts: Iterable[str]) -> set[Side]:
    words = {word for text in texts for word in text.split()}
    both: set[Side] = {"both"} if words & {"both", "bilateral"} else set()
    right: set[Side] = {"right"} if "right" in words else set()
    left: set[Side] = {"left"} if "left" in words else set()
    return both | right | left


def _united(sides: set[Side]) -> Side | None:
    if "both" in sides or len(sides) > 1:
        return "both"
    return next(iter(sides), None)


_LOBES = {
    "right upper lobe": "in the right upper lobe",
    "right lower lobe": "in the right lower lobe",
    "middle lobe": "in the middle lobe",
    "left upper lobe": "in the left upper lobe",
    "left lower lobe": "in the left lower lobe",
    "lingula": "in the lingula",
}
# on one side, on one that isn't known, on both
_Forms = tuple[str, str, str]
_ZONES: dict[str, _Forms] = {
    "upper lobe": ("in the {side} upper lobe", "in the upper lobes", "in both upper lobes"),
    "lower lobe": ("in the {side} lower lobe", "in the lower lobes", "in both lower lobes"),
    "upper lung field": ("in the {side} upper zone", "in the upper lung zone", "in both upper zones"),
    "middle lung field": ("in the {side} mid zone", "in the mid lung zone", "in both mid zones"),
    "lower lung field": ("in the {side} lower zone", "in the lower lung zone", "in both lower zones"),
    "apical": ("at the {side} apex", "at the lung apex", "at both apices"),
    "basal": ("at the {side} base", "at the lung base", "at both bases"),
    "basal bilateral": ("at both bases", "at both bases", "at both bases"),
    "perihilar": ("in the {side} perihilar region", "in the perihilar region", "in both perihilar regions"),
    "suprahilar": ("in the {side} suprahilar region", "in the suprahilar region", "in both suprahilar regions"),
    "infrahilar": ("in the {side} infrahilar region", "in the infrahilar region", "in both infrahilar regions"),
    "hilar": ("in the {side} hilar region", "in the hilar region", "in both hilar regions"),
    "hilar bilateral": ("in both hilar regions", "in both hilar regions", "in both hilar regions"),
    "retrocardiac": ("behind the heart", "behind the heart", "behind the heart"),
    "paracardiac": ("in the {side} paracardiac region", "beside the heart", "on both sides of the heart"),
    "paratracheal": ("in the {side} paratracheal region", "beside the trachea", "on both sides of the trachea"),
    "cardiophrenic angle": (
        "in the {side} cardiophrenic angle", "in the cardiophrenic angle", "in both cardiophrenic angles",
    ),
    "costophrenic angle": (
        "in the {side} costophrenic angle", "in the costophrenic angle", "in both costophrenic angles",
    ),
    "aortopulmonary window": ("in the aortopulmonary window",) * 3,
    "subpleural": ("in the {side} subpleural region", "in the subpleural region", "in both subpleural regions"),
}  # fmt: skip
_DIFFUSE: dict[str, _Forms] = {"diffuse bilateral": ("throughout both lungs",) * 3}
_WIDE: dict[str, _Forms] = {
    "hemithorax": ("in the {side} hemithorax", "", "in both hemithoraces"),
    "lung field": ("in the {side} lung", "", "in both lungs"),
}
_MEDIASTINUM: dict[str, _Forms] = {
    place: (f"in the {place}",) * 3
    for place in ("superior mediastinum", "anterior mediastinum", "middle mediastinum", "posterior mediastinum",
                  "lower mediastinum", "mediastinum")
}  # fmt: skip
_SPINE: dict[str, _Forms] = {
    "cervical vertebrae": ("in the cervical spine",) * 3,
    "dorsal vertebrae": ("in the thoracic spine",) * 3,
    "lumbar vertebrae": ("in the lumbar spine",) * 3,
}
_HUMERUS: _Forms = ("in the {side} humerus", "in the humerus", "in both humeri")
_SHOULDER: _Forms = ("in the {side} shoulder", "in the shoulder", "in both shoulders")
_RIBS: _Forms = ("in the {side} ribs", "in the ribs", "in the ribs on both sides")
_BONES: dict[str, _Forms] = {
    **_SPINE,
    **dict.fromkeys(("humerus", "humeral head", "humeral neck"), _HUMERUS),
    **dict.fromkeys(("shoulder", "glenohumeral joint", "acromioclavicular joint", "rotator cuff"), _SHOULDER),
    **dict.fromkeys(("rib", "anterior rib", "posterior rib", "rib cartilage"), _RIBS),
    "clavicle": ("in the {side} clavicle", "in the clavicle", "in both clavicles"),
    "scapula": ("in the {side} scapula", "in the scapula", "in both scapulae"),
}
_OUTSIDE: dict[str, _Forms] = {
    "axilar": ("in the {side} axilla", "in the axilla", "in both axillae"),
    "pectoral": ("in the {side} pectoral region", "in the pectoral region", "in both pectoral regions"),
    "cervical": ("in the neck",) * 3,
    "hypochondrium": ("in the {side} upper abdomen", "in the upper abdomen", "in the upper abdomen"),
    "epigastric": ("in the epigastrium",) * 3,
    "infradiaphragm": ("below the diaphragm",) * 3,
    "gastric chamber": ("in the stomach",) * 3,
    "cardiac": ("over the heart",) * 3,
    "aortic": ("over the aorta",) * 3,
    "coronary": ("in the coronary arteries",) * 3,
    "subcutaneous": ("in the subcutaneous tissue",) * 3,
    "soft tissue": ("in the soft tissues",) * 3,
    "column": ("in the spine",) * 3,
}
_LUNG_SIDE: _Forms = ("in the {side} lung", "", "in both lungs")
_ON_SIDE: _Forms = ("on the {side}", "", "on both sides")


def _in(*groups: dict[str, _Forms], side: _Forms = ("", "", "")) -> Callable[[Sequence[str], Side | None], str]:
    """Return a function that names the places of the first group that has any of them, or else the side."""

    def where(places: Sequence[str], known: Side | None) -> str:
        for group in groups:
            forms = dict.fromkeys(_form(group[place], _own_side(place) or known) for place in map(_plain, places)
                                  if place in group)  # fmt: skip
            if text := _list([form for form in forms if form]):
                return text
        return _form(side, known)

    return where


def _plain(place: str) -> str:
    """Return the place that the tables know: ``right costophrenic angle`` is a costophrenic angle."""
    return _SIDED_ANGLE.sub("", place)


_SIDED_ANGLE = re.compile(r"^(?:right|left|bilateral) (?=costophrenic angle|hypochondrium)")


def _own_side(place: str) -> Side | None:
    return "both" if "bilateral" in place else None


def _form(forms: _Forms, side: Side | None) -> str:
    one, unknown, both = forms
    if side is None:
        return unknown
    return both if side == "both" else one.format(side=side)


_lobes: dict[str, _Forms] = {place: (text,) * 3 for place, text in _LOBES.items()}

_WHERE: dict[str, Callable[[Sequence[str], Side | None], str]] = {
    "none": lambda places, side: "",
    "side": _in(side=_ON_SIDE),
    "toward": _in(side=("to the {side}", "", "")),
    "lung": _in(_lobes, _ZONES, _DIFFUSE, _WIDE, side=_LUNG_SIDE),
    "nodes": _in(_ZONES, _MEDIASTINUM, {one: _OUTSIDE[one] for one in ("axilar", "cervical")}, side=_ON_SIDE),
    "body": _in(_BONES, _OUTSIDE, _lobes, _ZONES, _DIFFUSE, _WIDE, side=_ON_SIDE),
    "spine": _in(_SPINE),
    "vein": _in({"superior cave vein": ("in the superior vena cava",) * 3}),
    "tube": _in(
        {"gastric chamber": ("extending into the stomach",) * 3},
        {"infradiaphragm": ("extending below the diaphragm",) * 3},
        {"esophageal": ("in the esophagus",) * 3},
    ),
}
