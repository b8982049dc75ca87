"""Procedural frontal chest phantoms: a small attenuation model with findings whose place is known exactly.

The picture is the line integral of attenuation through simple organs, windowed like a film: bright is dense
(DICOM's MONOCHROME2), and the patient's right is on the image's left. It is meant to teach boxes and words to
the demo model. It is no anatomy: a model that has seen only this knows nothing about patients.

Coordinates are fractions of the image, x to the right and y down, before a small turn, shift and scaling of
the whole chest. All that a seed decides is drawn before anything is rendered, so a seed shows the same chest
at each resolution; only the grain of the noise differs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from shared.findings import BY_LABEL, Laterality
from shared.grammar import LocatedFinding, LocBox

FIRST_HELD_OUT_SEED = 10_000_000
"""Seeds from here on are never trained on."""

PHANTOM_FINDINGS = ("cardiomegaly", "pleural effusion", "pneumothorax", "consolidation", "nodule", "mass")
"""What the phantoms can show; the other words of the vocabulary have no phantom yet."""

PHANTOM_TERMS: tuple[tuple[str, Laterality | None], ...] = tuple(
    (label, side)
    for label in PHANTOM_FINDINGS
    for side in (("right", "left") if BY_LABEL[label].sided else (None,))
)
"""Each finding with each of its sides, in the vocabulary's order: the planes of ``Phantom.masks``."""

_COUNTS = (0.2, 0.35, 0.28, 0.17)
"""How often a phantom has 0, 1, 2 and 3 findings."""

_SIDE_SIGN = {"right": -1.0, "left": 1.0}
"""Where a side of the patient lies on the image, from the midline."""

_SMALLEST_VISIBLE = 1e-3
"""Share of the image below which a finding is no longer called visible (4 x 4 pixels of 128 x 128)."""

_PLACES_TRIED = 6
"""Places tried for an opacity; one that finds no free place is left out, and so is its name."""

Field = NDArray[np.floating[Any]]
"""A value for each pixel, (height, width)."""


@dataclass(frozen=True)
class Phantom:
    """One drawn radiograph.

    Attributes:
        image: (size, size) uint8.
        findings: in the vocabulary's order, right before left; boxes are the tight bounds of the masks.
        masks: (findings, size, size) bool, the visible extent of each finding.
    """

    image: NDArray[np.uint8]
    findings: tuple[LocatedFinding, ...]
    masks: NDArray[np.bool_]


def training_seeds(count: int, seed: int = 0) -> range:
    """Seeds to train on; each ``seed`` has its own block of 100,000."""
    first = seed * 100_000
    if count > 100_000 or first + count > FIRST_HELD_OUT_SEED:
        raise ValueError(f"no {count} training seeds in block {seed}")
    return range(first, first + count)


def held_out_seeds(count: int) -> range:
    return range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + count)


def render(seed: int, size: int = 128) -> Phantom:
    """The phantom of a seed, ``size`` pixels square. The same arguments give the same bytes."""
    random = np.random.default_rng(seed)
    chest = _Chest(random, size)
    wanted = _choose(random)
    # Each finding has its own generator, so that one that turns out invisible changes nothing of the others.
    seeds = random.integers(2**63, size=len(PHANTOM_TERMS))
    shown: list[tuple[LocatedFinding, NDArray[np.bool_]]] = []
    for rank in sorted(wanted):
        label, side = PHANTOM_TERMS[rank]
        mask = _ADD[label](chest, np.random.default_rng(seeds[rank]), _SIDE_SIGN.get(side or "", 0.0))
        chest.occupied |= mask
        if mask.mean() >= _SMALLEST_VISIBLE:
            shown.append((LocatedFinding(BY_LABEL[label], side, bounds(mask)), mask))
    image = chest.film(random)
    masks = np.stack([mask for _, mask in shown]) if shown else np.zeros((0, size, size), bool)
    return Phantom(image, tuple(finding for finding, _ in shown), masks)


def bounds(mask: NDArray[np.bool_]) -> LocBox:
    """The tight box of a mask, from the first pixel's outer edge to the last one's."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    return LocBox.of_fractions(
        rows[0] / height, columns[0] / width, (rows[-1] + 1) / height, (columns[-1] + 1) / width
    )


def _choose(random: np.random.Generator) -> list[int]:
    """Ranks in PHANTOM_TERMS of the findings to show; the two sides of a pleural space hold one thing each."""
    count = int(random.choice(len(_COUNTS), p=_COUNTS))
    weights = np.array([2.0 if side is None else 1.0 for _, side in PHANTOM_TERMS])
    chosen: list[int] = []
    for rank in random.choice(len(PHANTOM_TERMS), len(PHANTOM_TERMS), replace=False, p=weights / weights.sum()):
        if len(chosen) < count and not any(_clash(int(rank), other) for other in chosen):
            chosen.append(int(rank))
    return chosen


def _clash(one: int, other: int) -> bool:
    """A pneumothorax is drawn as air alone, and a nodule beside a mass would be its satellite."""
    (label, side), (other_label, other_side) = PHANTOM_TERMS[one], PHANTOM_TERMS[other]
    together = {label, other_label}
    return side == other_side and together in ({"pneumothorax", "pleural effusion"}, {"nodule", "mass"})


class _Chest:
    """The organs of one chest as thickness maps, and the attenuation they add up to.

    Attributes:
        x, y: chest coordinates of each pixel; the midline is x = 0, and the image spans -0.5 to 0.5.
        lungs: share of lung along the ray, 0 to 1, for the image's left (-1) and right (+1) lung.
        density: attenuation summed along the ray, in units of the densest soft tissue.
        occupied: where the heart or a finding is; an opacity drawn there would be hidden.
    """

    def __init__(self, random: np.random.Generator, size: int) -> None:
        self.size = size
        uniform = random.uniform
        turn, scale = np.radians(uniform(-4, 4)), uniform(0.93, 1.06)
        shift_x, shift_y = uniform(-0.025, 0.025), uniform(-0.025, 0.025)
        at = (np.arange(size, dtype=np.float32) + 0.5) / size
        u, v = (at - 0.5 - shift_x)[None, :] / scale, (at - 0.5 - shift_y)[:, None] / scale
        self.x: Field = np.cos(turn) * u + np.sin(turn) * v
        self.y: Field = -np.sin(turn) * u + np.cos(turn) * v + 0.5
        self.edge = 0.006
        """Blur of an organ's outline: the focal spot and breathing, as a fraction of the image."""

        self.half_chest = uniform(0.37, 0.42)
        self.apex = uniform(0.10, 0.15)
        base = uniform(0.70, 0.78)
        self.base = {-1.0: base - uniform(0.005, 0.045), 1.0: base}
        self.heart_shift = uniform(0.03, 0.05)
        self.heart_half = self.half_chest * uniform(0.40, 0.47)
        self._texture = {n: random.normal(size=(n, n)).astype(np.float32) for n in (6, 14, 40)}
        self._anatomy = random.uniform(size=32)

        self.lungs = {sign: self._lung(sign) for sign in (-1.0, 1.0)}
        self.density = self._body()

    # Shapes

    def inside(self, signed: Field) -> Field:
        """A soft indicator from a signed distance (positive inside), in fractions of the image."""
        return 1 / (1 + np.exp(np.clip(-signed / self.edge, -30, 30)))

    def ellipse(self, x: float, y: float, half_x: float, half_y: float, turn: float = 0.0) -> Field:
        """Normalised radius: 0 at the centre, 1 on the outline."""
        dx, dy = self.x - x, self.y - y
        along, across = np.cos(turn) * dx + np.sin(turn) * dy, -np.sin(turn) * dx + np.cos(turn) * dy
        return np.hypot(along / half_x, across / half_y)

    def texture(self, scale: int) -> Field:
        """Smooth noise of about unit variance with ``scale`` cells over the image."""
        cells = Image.fromarray(self._texture[scale])
        return np.asarray(cells.resize((self.size, self.size), Image.Resampling.BICUBIC))

    def lung_half(self) -> Field:
        """Distance of the lung's outer border from the midline at each height."""
        down = np.clip((self.y - self.apex) / (self.base[1.0] - self.apex), 0, 1.3)
        return self.half_chest * (0.94 * np.power(np.clip(down, 1e-4, None), 0.27) + 0.06 * np.square(down) - 0.02)

    def _lung(self, sign: float) -> Field:
        across = self.x * sign
        # A dome: highest a little medial of the middle, deep at the side (the costophrenic angle).
        off = across - 0.15
        dome = self.base[sign] + np.where(off > 0, np.minimum(2.4 * np.square(off), 0.14), 1.5 * np.square(off))
        medial = 0.055 + 0.03 * np.exp(-np.square((self.y - 0.42) / 0.1))
        return (
            self.inside(self.lung_half() - across)
            * self.inside(across - medial)
            * self.inside(dome - self.y)
            * self.inside(self.y - self.apex)
        )

    # Organs

    def heart(self, grown: float = 1.0) -> tuple[Field, Field]:
        """(share of the ray in the heart, soft silhouette); ``grown`` widens it about the spine."""
        half = self.heart_half * grown
        # The apex points down to the patient's left, and most of what is added goes there.
        centre_x = self.heart_shift + 0.25 * (half - self.heart_half)
        half_y = 0.155 * (0.6 + 0.4 * grown)
        centre_y = self.base[1.0] - 0.105 - 0.02 * (grown - 1)
        radius = self.ellipse(centre_x, centre_y, half, half_y, turn=0.22)
        return np.sqrt(np.clip(1 - np.square(radius), 0, None)), self.inside((1 - radius) * half_y)

    def _body(self) -> Field:
        draw = self._anatomy
        x, y = self.x, self.y
        shoulder = 0.115 + 0.4 * np.clip(y, 0, None) + 3.2 * np.clip(y - 0.06, 0, None) ** 1.2
        wall = self.half_chest + 0.055 + 0.05 * draw[0] + 0.10 * np.exp(-np.square((y - 0.22) / 0.1))
        outline = np.minimum(shoulder, wall)
        torso = self.inside((outline - np.abs(x)) * 0.6)
        thick = np.sqrt(np.clip(1 - 0.75 * np.square(x / np.maximum(outline, 0.05)), 0.05, 1))
        density = torso * thick * (0.62 + 0.10 * np.clip(y - 0.3, 0, 0.6))

        lungs = self.lungs[-1.0] + self.lungs[1.0]
        depth = 0.80 + 0.20 * np.sin(np.pi * np.clip((y - self.apex) / 0.62, 0, 1))
        density -= (0.40 + 0.05 * draw[1]) * lungs * depth * torso

        density += lungs * (0.012 * self.texture(40) + 0.012 * self.texture(14)) + self._vessels(lungs)
        density += self._mediastinum() + self._bones(torso, lungs)

        under_dome = self.inside(y - self.base[1.0] - 0.045) * np.exp(-(np.square(x / 0.3) ** 2))
        density += 0.10 * under_dome
        if draw[2] < 0.75:
            below = self.base[1.0] + 0.075 + 0.02 * draw[4]
            bubble = self.ellipse(0.14 + 0.06 * draw[3], below, 0.05 + 0.03 * draw[5], 0.028 + 0.02 * draw[6])
            density -= (0.14 + 0.1 * draw[7]) * self.inside((1 - bubble) * 0.04)
        if draw[8] < 0.4:
            for sign in (-1.0, 1.0):
                breast = self.ellipse(sign * 0.2, 0.60 + 0.06 * draw[9], 0.15, 0.13)
                density += 0.06 * np.sqrt(np.clip(1 - np.square(breast), 0, None))
        return density.astype(np.float32)

    def _mediastinum(self) -> Field:
        x, y = self.x, self.y
        draw = self._anatomy
        column = self.inside(0.062 + 0.012 * draw[10] - np.abs(x)) * self.inside(y - 0.05)
        knob = self.ellipse(0.062, 0.315 + 0.02 * draw[11], 0.042 + 0.012 * draw[12], 0.05)
        trachea = np.exp(-np.square((x + 0.004) / 0.015)) * self.inside(0.36 - y)
        thickness, silhouette = self.heart()
        self.occupied = silhouette > 0.5
        hila = sum(
            np.exp(-np.square(self.ellipse(sign * 0.095, 0.43 + (0.015 if sign < 0 else -0.01), 0.035, 0.055)))
            for sign in (-1.0, 1.0)
        )
        return (
            0.17 * column * (1 - 0.5 * silhouette)
            + 0.13 * self.inside((1 - knob) * 0.045)
            - 0.10 * trachea
            + self.heart_density(thickness, silhouette)
            + 0.15 * hila
        )

    def heart_density(self, thickness: Field, silhouette: Field) -> Field:
        """The heart stands where lung would be, so it adds most in front of the lungs."""
        lungs = np.clip(self.lungs[-1.0] + self.lungs[1.0], 0, 1)
        return 0.10 * thickness + (0.06 + 0.22 * lungs) * silhouette

    def _vessels(self, lungs: Field) -> Field:
        """Branches that leave the hila and thin out towards the border."""
        total = np.zeros_like(self.x)
        for sign in (-1.0, 1.0):
            dx, dy = self.x * sign - 0.07, self.y - 0.43
            distance = np.hypot(dx, dy) + 1e-3
            angle = np.arctan2(dy, dx) + 0.12 * self.texture(14) * np.sqrt(distance)
            phase = self._anatomy[13 if sign < 0 else 14] * 6.3
            comb = np.cos(angle * 7 + phase) + 0.7 * np.cos(angle * 12 - 2 * phase)
            total += np.clip(comb - 0.8, 0, None) * np.exp(-distance / 0.14)
        return 0.11 * total * lungs

    def _bones(self, torso: Field, lungs: Field) -> Field:
        x, y = self.x, self.y
        draw = self._anatomy
        vertebrae = np.exp(-np.square(x / 0.038)) * (0.75 + 0.25 * np.cos(2 * np.pi * y / 0.062 + 6 * draw[15]))
        cage = self.inside(self.half_chest + 0.012 - np.abs(x)) * self.inside(y - self.apex + 0.02)
        cage *= self.inside(self.base[1.0] + 0.09 - y)
        across = np.abs(x) / self.half_chest
        spacing = 0.078 + 0.008 * draw[16]
        posterior = (y - 0.16 * np.square(across) + 0.15 * across**4 - 0.05 * across) / spacing + draw[17]
        anterior = (y + 0.20 * np.square(1 - across) - 0.02) / (spacing * 1.1) + draw[18]
        rib = self._band(posterior, 0.30) * np.clip(across * 4 - 0.3, 0, 1)
        front = self._band(anterior, 0.32) * np.clip(across * 3 - 1.2, 0, 1)
        clavicle = np.zeros_like(x)
        for sign in (-1.0, 1.0):
            along = np.clip(x * sign, 0, None)
            middle = 0.185 - 0.22 * along + 0.10 * np.sin(along * 12) * 0.25 + 0.01 * draw[19]
            clavicle += (
                np.exp(-np.square((y - middle) / 0.013)) * self.inside(along - 0.03) * self.inside(0.36 - along)
            )
        blade = sum(
            self.inside((1 - self.ellipse(s * (self.half_chest + 0.015), 0.33, 0.05, 0.14, turn=s * -0.15)) * 0.05)
            for s in (-1.0, 1.0)
        )
        strength = 0.8 + 0.5 * draw[20]
        bones = strength * (0.075 * rib + 0.045 * front) * cage + 0.13 * clavicle + 0.12 * vertebrae + 0.05 * blade
        return bones * torso * (0.6 + 0.4 * np.clip(lungs, 0, 1))

    @staticmethod
    def _band(phase: Field, width: float) -> Field:
        """Stripes, one for each whole number, with edges brighter than the middle, as cortical bone has."""
        off = np.abs(phase - np.round(phase)) / width
        return np.clip(1 - off**6, 0, None) * (0.65 + 0.35 * np.square(off)) * (off < 1)

    # The film

    def film(self, random: np.random.Generator) -> NDArray[np.uint8]:
        """Scatter, exposure, window and quantum noise; the noise grows where fewer photons arrive."""
        uniform = random.uniform
        scatter = gaussian_filter(self.density, 0.08 * self.size, truncate=2.5)
        seen = self.density - uniform(0.05, 0.25) * scatter
        low, high = np.percentile(seen[::4, ::4], (1, 99.5))
        shown = (seen - low) / (high - low)
        shown = np.clip(shown, 0, 1.2) ** uniform(0.8, 1.25) * uniform(0.82, 1.0) + uniform(0.0, 0.06)
        # Averaging over a coarse pixel hides part of the grain.
        grain = uniform(0.008, 0.028) * (0.6 + 0.6 * shown)
        shown = shown + grain * random.normal(size=shown.shape)
        return (np.clip(shown, 0, 1) * 255).round().astype(np.uint8)


# Findings: each adds itself to the density and gives its visible extent.


def _cardiomegaly(chest: _Chest, random: np.random.Generator, _: float) -> NDArray[np.bool_]:
    thickness, silhouette = chest.heart()
    grown_thickness, grown = chest.heart(grown=random.uniform(1.32, 1.65))
    chest.density += chest.heart_density(grown_thickness, grown) - chest.heart_density(thickness, silhouette)
    return grown > 0.5


def _effusion(chest: _Chest, random: np.random.Generator, sign: float) -> NDArray[np.bool_]:
    across = np.clip(chest.x * sign / chest.half_chest, 0, 1)
    depth = random.uniform(0.06, 0.30)
    # A meniscus: it climbs along the lateral chest wall.
    level = chest.base[sign] + 0.07 - depth - (0.05 + 0.25 * depth) * across**3
    fluid = chest.lungs[sign] * chest.inside(chest.y - level)
    _, silhouette = chest.heart()
    chest.density += random.uniform(0.30, 0.38) * fluid * (1 - 0.8 * silhouette)
    return fluid > 0.5


def _pneumothorax(chest: _Chest, random: np.random.Generator, sign: float) -> NDArray[np.bool_]:
    # The lung falls away from its apex and its side, towards the hilum.
    gap, drop = random.uniform(0.045, 0.13), random.uniform(0.04, 0.12)
    low = random.uniform(0.50, 0.66)
    fade = np.clip((low - chest.y) / 0.25, 0, 1)
    visceral = np.minimum(
        chest.lung_half() - gap * np.sqrt(fade) - chest.x * sign,
        chest.y - chest.apex - drop - 0.35 * np.square(np.clip(chest.x * sign / chest.half_chest - 0.3, 0, None)),
    )
    air = chest.lungs[sign] * (1 - chest.inside(visceral)) * (chest.y < low)
    lung_left = chest.lungs[sign] * chest.inside(visceral)
    line = np.exp(-np.square(visceral / 0.006)) * chest.lungs[sign] * (chest.y < low)
    chest.density += -random.uniform(0.09, 0.13) * air + 0.05 * lung_left + 0.07 * line
    return air > 0.5


def _opacity(
    chest: _Chest,
    random: np.random.Generator,
    sign: float,
    half: tuple[float, float],
    strength: tuple[float, float],
    ragged: float,
) -> NDArray[np.bool_]:
    """A round to oval opacity inside a lung; ``half`` is the range of its half-width, ``ragged`` its outline."""
    half_x = random.uniform(*half)
    half_y = half_x * random.uniform(0.85, 1.15 + ragged)
    turn = random.uniform(-0.6, 0.6)
    for _ in range(_PLACES_TRIED):
        extent = _blob(chest, random, sign, (half_x, half_y), turn, ragged)
        mask = extent > 0.5
        if np.count_nonzero(mask & chest.occupied) <= 0.1 * np.count_nonzero(mask):
            mottled = 1 + ragged * 0.22 * chest.texture(40)
            chest.density += random.uniform(*strength) * extent * mottled
            return mask
    return np.zeros_like(mask)


def _blob(
    chest: _Chest,
    random: np.random.Generator,
    sign: float,
    half: tuple[float, float],
    turn: float,
    ragged: float,
) -> Field:
    """The soft extent of an opacity at a random place of a lung."""
    half_x, half_y = half
    x = sign * random.uniform(0.11 + 0.4 * half_x, chest.half_chest - 0.05 - 0.8 * half_x)
    y = random.uniform(chest.apex + 0.09 + half_y, chest.base[sign] - 0.02 - half_y)
    radius = chest.ellipse(x, y, half_x, half_y, turn)
    radius = radius + ragged * (0.35 * chest.texture(6) + 0.45 * chest.texture(14)) * np.clip(radius, 0, 1)
    soft = 0.25 if ragged > 0.3 else 0.12
    return 1 / (1 + np.exp(np.clip((radius - 1) / soft, -30, 30))) * chest.lungs[sign]


def _consolidation(chest: _Chest, random: np.random.Generator, sign: float) -> NDArray[np.bool_]:
    return _opacity(chest, random, sign, half=(0.06, 0.105), strength=(0.19, 0.29), ragged=0.55)


def _nodule(chest: _Chest, random: np.random.Generator, sign: float) -> NDArray[np.bool_]:
    return _opacity(chest, random, sign, half=(0.020, 0.036), strength=(0.20, 0.30), ragged=0.0)


def _mass(chest: _Chest, random: np.random.Generator, sign: float) -> NDArray[np.bool_]:
    return _opacity(chest, random, sign, half=(0.055, 0.09), strength=(0.26, 0.36), ragged=0.06)


_ADD: dict[str, Callable[[_Chest, np.random.Generator, float], NDArray[np.bool_]]] = {
    "cardiomegaly": _cardiomegaly,
    "pleural effusion": _effusion,
    "pneumothorax": _pneumothorax,
    "consolidation": _consolidation,
    "nodule": _nodule,
    "mass": _mass,
}


def term_ranks(findings: Iterable[LocatedFinding]) -> list[int]:
    """The plane in PHANTOM_TERMS of each finding."""
    return [PHANTOM_TERMS.index((one.finding.label, one.laterality)) for one in findings]
