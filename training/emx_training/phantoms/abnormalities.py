"""The abnormalities: each function changes a chest and returns the visible extent, (size, size) bool."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from emx_training.phantoms.anatomy import AERATED, Chest
from emx_training.phantoms.canvas import Field

Mask = NDArray[np.bool_]

IMAGE_WIDTH_CM = 40.0
NORMAL_HEART, ENLARGED_HEART = (0.38, 0.47), (0.535, 0.66)
"""Ranges of the cardiothoracic ratio, magnification included. Above 0.5 a heart is enlarged; none is between."""

_PLACES_TRIED = 8
"""Places to try for an opacity. Without a free place, the finding is left out of image and report."""


def add_effusion(chest: Chest, random: np.random.Generator, sign: float) -> Mask:
    """Add fluid at the base, from a blunted angle to half a lung, with a meniscus along the chest wall."""
    across = np.clip(chest.canvas.x * np.float32(sign) / np.float32(chest.half), 0, 1.1)
    depth = random.uniform(0.045, 0.26)
    level = chest.base[sign] + 0.075 - depth - (0.035 + 0.25 * depth) * across**3
    fluid = chest.canvas.inside((chest.canvas.y - level).astype(np.float32), edge=0.006)
    visible = (fluid * chest.lungs[sign]) > 0.5
    side = np.clip(chest.canvas.x * np.float32(sign) / np.float32(0.02), 0, 1)
    filled = np.float32(random.uniform(0.88, 1.0)) * fluid * side
    chest.air *= 1 - filled
    return visible


def add_pneumothorax(chest: Chest, random: np.random.Generator, sign: float) -> Mask:
    """Add air between lung and chest wall: no vessels beyond a thin line, widest at the apex."""
    canvas = chest.canvas
    gap, drop, low = random.uniform(0.035, 0.12), random.uniform(0.035, 0.13), random.uniform(0.42, 0.62)
    fade = np.clip((np.float32(low) - canvas.y) / np.float32(0.22), 0, 1)
    across = canvas.x * np.float32(sign)
    rounding = 0.35 * np.square(np.clip(across / chest.half - 0.3, 0, None))
    visceral = np.minimum(
        chest.wall() - np.float32(gap) * np.sqrt(fade) - across, canvas.y - chest.apex - drop - rounding
    ).astype(np.float32)
    above = canvas.y < low
    air = chest.lungs[sign] * canvas.inside(-visceral) * above
    line = np.exp(-np.square(visceral / np.float32(0.0045))) * chest.lungs[sign] * above
    chest.vessels *= 1 - air
    # The ray passes through less lung tissue there, and the collapsed lung beside it is a little denser.
    chest.soft -= np.float32(random.uniform(0.45, 1.0)) * (1 - AERATED) * chest.air * air
    collapsed = chest.lungs[sign] * canvas.inside(visceral) * above
    chest.soft += np.float32(random.uniform(0.2, 0.5)) * collapsed + np.float32(random.uniform(0.3, 0.55)) * line
    return air > 0.5


def add_consolidation(chest: Chest, random: np.random.Generator, sign: float) -> Mask:
    """Fill air spaces in part: soft, ragged borders, mottled where bronchi still contain air."""
    half = random.uniform(0.05, 0.105)
    coarse, fine = (random.normal(size=(cells, cells)) for cells in (7, 16))
    mottle = chest.canvas.texture(random.normal(size=(44, 44)))
    strength = np.float32(random.uniform(0.40, 0.75))
    ragged = np.float32(0.22) * chest.canvas.texture(coarse) + np.float32(0.18) * chest.canvas.texture(fine)

    def extent(x: float, y: float) -> Field:
        radius = chest.canvas.ellipse((x, y), (half, half * stretch), turn)
        radius = radius + ragged * np.clip(radius, 0, 1)
        return chest.canvas.inside((1 - radius) * np.float32(half), edge=0.016) * chest.lungs[sign]

    stretch, turn = random.uniform(0.8, 1.35), random.uniform(-0.6, 0.6)
    return _place(
        chest, random, sign, (half, half * stretch), extent, lambda where: _fill(chest, where, strength, mottle)
    )


def _fill(chest: Chest, where: Field, strength: np.float32, mottle: Field) -> None:
    chest.air *= 1 - np.clip(strength * where * (1 + np.float32(0.18) * mottle), 0, 0.97)


def add_nodule(chest: Chest, random: np.random.Generator, sign: float) -> Mask:
    """Add a ball of less than three centimetres."""
    return _ball(chest, random, sign, half=random.uniform(0.020, 0.036), density=random.uniform(1.2, 1.7))


def add_mass(chest: Chest, random: np.random.Generator, sign: float) -> Mask:
    """Add a lobulated ball of more than three centimetres."""
    return _ball(
        chest, random, sign, half=random.uniform(0.050, 0.088), density=random.uniform(0.55, 0.95), lobes=0.10
    )


def _ball(
    chest: Chest, random: np.random.Generator, sign: float, *, half: float, density: float, lobes: float = 0.0
) -> Mask:
    stretch, turn = random.uniform(0.88, 1.14), random.uniform(-0.7, 0.7)
    wavy = np.float32(lobes) * chest.canvas.texture(random.normal(size=(11, 11)))
    depth = np.float32(AERATED * density * 2 * half * IMAGE_WIDTH_CM)

    def extent(x: float, y: float) -> Field:
        radius = chest.canvas.ellipse((x, y), (half, half * stretch), turn)
        radius = radius + wavy * np.clip(radius, 0, 1)
        return np.sqrt(np.clip(1 - np.square(radius), 0, 1)) * chest.lungs[sign]

    def add(where: Field) -> None:
        chest.soft += depth * where

    return _place(chest, random, sign, (half, half * stretch), extent, add, visible_from=0.3)


def add_atelectasis(chest: Chest, random: np.random.Generator, sign: float) -> Mask:
    """Add plates of collapsed lung: two or three thin bands above the diaphragm, which is raised."""
    half, bands = random.uniform(0.05, 0.085), int(random.integers(2, 4))
    thin = random.uniform(0.0085, 0.0125, size=bands)
    offsets = np.cumsum(random.uniform(0.034, 0.048, size=bands)) - 0.034
    turn, strength = random.uniform(-0.35, 0.35), np.float32(random.uniform(1.5, 2.6))
    shifts = random.uniform(-0.012, 0.012, size=bands)

    def extent(x: float, y: float) -> Field:
        total = np.zeros_like(chest.air)
        for rank in range(bands):
            centre = (x + float(shifts[rank]), y - float(offsets[rank]))
            radius = chest.canvas.ellipse(centre, (half, float(thin[rank])), turn * sign)
            total = np.maximum(total, chest.canvas.inside((1 - radius) * np.float32(thin[rank]), edge=0.0025))
        return total * chest.lungs[sign]

    def add(where: Field) -> None:
        chest.soft += strength * where

    low = chest.base[sign] - 0.012
    return _place(chest, random, sign, (half, 0.02), extent, add, heights=(low - 0.10, low))


def add_interstitial_pattern(chest: Chest, random: np.random.Generator, sign: float) -> Mask:
    """Add a net of fine lines over a lung, or over all of it except its top."""
    cut = chest.apex + random.choice([-0.05, random.uniform(0.08, 0.24)])
    region = chest.lungs[sign] * chest.canvas.inside(chest.canvas.y - np.float32(cut), edge=0.012)
    ridges = np.zeros_like(chest.air)
    for cells, share in ((46, 0.6), (74, 0.6)):
        noise = chest.canvas.texture(random.normal(size=(cells, cells)))
        ridges += np.float32(share) * np.exp(-np.square(noise / np.float32(0.30)))
    chest.soft += region * (np.float32(random.uniform(1.1, 2.1)) * ridges + np.float32(random.uniform(0.1, 0.5)))
    return region > 0.5


def _place(
    chest: Chest,
    random: np.random.Generator,
    sign: float,
    half: tuple[float, float],
    extent: Callable[[float, float], Field],
    add: Callable[[Field], None],
    heights: tuple[float, float] | None = None,
    visible_from: float = 0.5,
) -> Mask:
    """Add an opacity at a free place where most of it is visible; without one, return an empty mask."""
    half_x, half_y = half
    low, high = heights or (chest.apex + 0.05 + half_y, chest.base[sign] - 0.01 - half_y)
    for _ in range(_PLACES_TRIED):
        x = sign * random.uniform(0.07 + 0.5 * half_x, chest.half - 0.012 - 0.75 * half_x)
        where = extent(x, random.uniform(low, max(high, low + 0.01)))
        mask = where > visible_from
        covered = np.count_nonzero(mask & chest.occupied)
        whole = np.pi * half_x * half_y * chest.canvas.size**2
        if covered <= 0.06 * np.count_nonzero(mask) and (heights or np.count_nonzero(mask) >= 0.5 * whole):
            add(where)
            return mask
    return np.zeros_like(chest.occupied)
