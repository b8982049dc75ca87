"""Draw frontal chest phantoms: radiographs computed from an attenuation model, with findings at known places.

They teach words and boxes to the demo model. A model that has seen only phantoms knows nothing about patients.
Bright is dense, and the patient's right is on the image's left. A seed shows the same chest at each resolution;
only the grain of the noise differs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emx_shared.contracts.findings import BY_LABEL, Laterality
from emx_shared.grammar import LocatedFinding, LocBox
from emx_training.phantoms import abnormalities
from emx_training.phantoms.abnormalities import ENLARGED_HEART, NORMAL_HEART, Mask
from emx_training.phantoms.anatomy import Chest
from emx_training.phantoms.canvas import Canvas
from emx_training.phantoms.devices import add_devices, add_marker
from emx_training.phantoms.film import exposed
from emx_training.phantoms.site import SITES, Site, SiteName

SIZE = 160
"""Pixels along each side of an image as the demo model sees it."""

FIRST_HELD_OUT_SEED = 10_000_000
"""Seeds from here on are never trained on."""

PHANTOM_TERMS: tuple[tuple[str, Laterality | None], ...] = (
    ("cardiomegaly", None),
    ("pleural effusion", "right"), ("pleural effusion", "left"),
    ("pneumothorax", "right"), ("pneumothorax", "left"),
    ("consolidation", "right"), ("consolidation", "left"),
    ("atelectasis", "right"), ("atelectasis", "left"),
    ("nodule", "right"), ("nodule", "left"),
    ("mass", "right"), ("mass", "left"),
    ("interstitial pattern", "right"), ("interstitial pattern", "left"),
)  # fmt: skip
"""What a phantom can show, in the vocabulary's order: the planes of ``Phantom.masks`` that training reads."""

_ADD: dict[str, Callable[[Chest, np.random.Generator, float], Mask]] = {
    "interstitial pattern": abnormalities.add_interstitial_pattern,
    "pneumothorax": abnormalities.add_pneumothorax,
    "pleural effusion": abnormalities.add_effusion,
    "mass": abnormalities.add_mass,
    "consolidation": abnormalities.add_consolidation,
    "atelectasis": abnormalities.add_atelectasis,
    "nodule": abnormalities.add_nodule,
}
"""In drawing order: large findings first, so that small ones still find a free place."""

_SIGN = {"right": -1.0, "left": 1.0}

_CLASH: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            ("pneumothorax", "pleural effusion"),
            ("pneumothorax", "interstitial pattern"),
            ("pleural effusion", "atelectasis"),
            ("nodule", "mass"),
            ("interstitial pattern", "consolidation"),
            ("interstitial pattern", "nodule"),
            ("interstitial pattern", "atelectasis"),
        ),
    )
)
"""Findings that never share a lung, since one would hide the other or be part of it."""

_SMALLEST_VISIBLE = 8e-4
"""Share of the image below which a finding counts as invisible."""


@dataclass(frozen=True)
class Phantom:
    """One computed radiograph.

    Attributes:
        image: (size, size) uint8; bright is dense.
        findings: in the vocabulary's order, right before left; boxes are the tight bounds of the masks.
        masks: (findings, size, size) bool, the visible extent of each finding.
    """

    image: NDArray[np.uint8]
    findings: tuple[LocatedFinding, ...]
    masks: NDArray[np.bool_]


def training_seeds(count: int, block: int = 0) -> range:
    """Return seeds to train on.

    Args:
        count: number of seeds, at most 100,000.
        block: the block of 100,000 seeds whose first ones are returned.

    Raises:
        ValueError: if the block has fewer seeds, or held-out ones.
    """
    first = block * 100_000
    if count > 100_000 or first + count > FIRST_HELD_OUT_SEED:
        raise ValueError(f"no {count} training seeds in block {block}")
    return range(first, first + count)


def held_out_seeds(count: int) -> range:
    """Return the first seeds that are never trained on."""
    return range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + count)


def render(seed: int, size: int = SIZE, site: SiteName = "alpha") -> Phantom:
    """Draw the phantom of a seed at a site, ``size`` pixels square. The same arguments give the same bytes."""
    room = SITES[site]
    # Each part has its own generator, so that its draws don't change the other parts.
    wishes, build, shapes, extras, exposure = np.random.default_rng([seed, list(SITES).index(site)]).spawn(5)
    wanted = _choose(wishes, room)
    chest = _chest(build, room, size, wanted)
    shown: dict[int, NDArray[np.bool_]] = {}
    own = shapes.spawn(len(PHANTOM_TERMS))
    for label, add in _ADD.items():
        for rank in wanted:
            if PHANTOM_TERMS[rank][0] == label:
                mask = add(chest, own[rank], _SIGN[PHANTOM_TERMS[rank][1] or ""])
                chest.occupied |= mask
                shown[rank] = mask
    if 0 in wanted:
        shown[0] = chest.heart > 0.5
    if extras.uniform() < room.devices:
        add_devices(chest, extras)
    if extras.uniform() < room.marked:
        add_marker(chest, extras)
    image = exposed(chest, room, exposure)
    seen = {rank: mask for rank, mask in sorted(shown.items()) if mask.mean() >= _SMALLEST_VISIBLE}
    located = (
        LocatedFinding(BY_LABEL[label], side, bounds(seen[rank]))
        for rank, (label, side) in enumerate(PHANTOM_TERMS)
        if rank in seen
    )
    masks = np.stack(list(seen.values())) if seen else np.zeros((0, size, size), bool)
    return Phantom(image, tuple(located), masks)


def bounds(mask: Mask) -> LocBox:
    """Return the tight box of a mask, from the first pixel's outer edge to the last pixel's."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    return LocBox.of_fractions(
        rows[0] / height, columns[0] / width, (rows[-1] + 1) / height, (columns[-1] + 1) / width
    )


def term_ranks(located: Iterable[LocatedFinding]) -> list[int]:
    """Return the rank of each finding in ``PHANTOM_TERMS``."""
    return [PHANTOM_TERMS.index((one.finding.label, one.laterality)) for one in located]


def _choose(random: np.random.Generator, room: Site) -> list[int]:
    """Choose the findings to show, as ranks in ``PHANTOM_TERMS``."""
    count = int(random.choice(len(room.counts), p=room.counts))
    weights = np.array([2.0 if side is None else 1.0 for _, side in PHANTOM_TERMS])
    chosen: list[int] = []
    for rank in random.choice(len(PHANTOM_TERMS), len(PHANTOM_TERMS), replace=False, p=weights / weights.sum()):
        if len(chosen) < count and not any(_clash(int(rank), other) for other in chosen):
            chosen.append(int(rank))
    return sorted(chosen)


def _clash(one: int, other: int) -> bool:
    (label, side), (other_label, other_side) = PHANTOM_TERMS[one], PHANTOM_TERMS[other]
    return side == other_side and frozenset((label, other_label)) in _CLASH


def _chest(random: np.random.Generator, room: Site, size: int, wanted: list[int]) -> Chest:
    turn, scale = np.radians(random.uniform(-room.turn, room.turn)), random.uniform(*room.scale)
    shift = (random.uniform(-room.shift, room.shift), random.uniform(-room.shift, room.shift))
    terms = [PHANTOM_TERMS[rank] for rank in wanted]
    raised = random.uniform(*room.raised)
    higher = {
        sign: raised + (random.uniform(0.01, 0.035) if ("atelectasis", side) in terms else 0.0)
        for side, sign in _SIGN.items()
    }
    magnification = random.uniform(*room.magnification)
    ratio = random.uniform(*(ENLARGED_HEART if ("cardiomegaly", None) in terms else NORMAL_HEART))
    return Chest(
        Canvas(size, float(turn), scale, shift),
        random,
        heart_ratio=ratio / magnification,
        magnification=magnification,
        raised=higher,
    )


__all__ = [
    "FIRST_HELD_OUT_SEED",
    "PHANTOM_TERMS",
    "SITES",
    "SIZE",
    "Phantom",
    "Site",
    "SiteName",
    "bounds",
    "held_out_seeds",
    "render",
    "term_ranks",
    "training_seeds",
]
