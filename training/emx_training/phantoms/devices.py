"""Devices on or in a patient: electrodes, catheters, tubes, pacemakers; and side markers."""

import numpy as np

from emx_training.phantoms.anatomy import Chest
from emx_training.phantoms.canvas import Point, Points, Stroke

_LETTERS: dict[str, list[list[Point]]] = {
    "L": [[(0, 0), (0, 1), (0.6, 1)]],
    "R": [[(0, 1), (0, 0), (0.5, 0.05), (0.6, 0.28), (0.5, 0.5), (0, 0.52), (0.6, 1)]],
}


def add_devices(chest: Chest, random: np.random.Generator) -> None:
    """Add one to three devices."""
    kinds = (_electrodes, _central_line, _gastric_tube, _pacemaker)
    for rank in random.choice(len(kinds), size=int(random.integers(1, 4)), replace=False, p=(0.4, 0.3, 0.2, 0.1)):
        kinds[int(rank)](chest, random)


def add_marker(chest: Chest, random: np.random.Generator) -> None:
    """Add the lead letter of a side beside that shoulder."""
    name, sign = ("L", 1.0) if random.uniform() < 0.6 else ("R", -1.0)
    height, x, y = random.uniform(0.028, 0.042), random.uniform(0.36, 0.43), random.uniform(0.02, 0.09)
    lines: list[Stroke] = [
        ([(sign * x + height * px, y + height * py) for px, py in line], 0.006, 255) for line in _LETTERS[name]
    ]
    chest.metal += np.float32(2.2) * chest.canvas.strokes(lines)


def _electrodes(chest: Chest, random: np.random.Generator) -> None:
    places = [(-0.24, 0.20), (0.24, 0.20), (0.22, 0.62), (-0.22, 0.60)]
    meeting = (random.uniform(-0.1, 0.1), 1.1)
    chosen = random.choice(4, size=3, replace=False)
    wires: list[Stroke] = []
    discs: list[tuple[Points, int]] = []
    for rank in chosen:
        x, y = (
            places[int(rank)][0] + random.uniform(-0.05, 0.05),
            places[int(rank)][1] + random.uniform(-0.04, 0.04),
        )
        middle = (0.5 * (x + meeting[0]) + random.uniform(-0.08, 0.08), 0.5 * (y + meeting[1]))
        wires.append((_curve((x, y), middle, meeting), 0.0032, 150))
        angles = np.linspace(0, 2 * np.pi, 17)
        discs.append((list(zip(x + 0.0135 * np.cos(angles), y + 0.0135 * np.sin(angles), strict=True)), 255))
    chest.metal += np.float32(0.7) * chest.canvas.strokes(wires) + np.float32(1.5) * chest.canvas.areas(discs)


def _central_line(chest: Chest, random: np.random.Generator) -> None:
    sign = float(random.choice([-1.0, 1.0]))
    start = (sign * random.uniform(0.10, 0.30), random.uniform(0.02, 0.14))
    end = (random.uniform(-0.05, -0.025), random.uniform(0.40, 0.52))
    line = _curve(start, (-0.035 if sign < 0 else 0.0, 0.24), end)
    chest.metal += np.float32(random.uniform(0.4, 0.8)) * chest.canvas.strokes([(line, 0.0050, 255)])


def _gastric_tube(chest: Chest, random: np.random.Generator) -> None:
    end = (random.uniform(0.06, 0.16), chest.base[1.0] + random.uniform(0.05, 0.12))
    line = [(0.0, -0.1), (0.006, 0.3), (0.01, 0.6), *_curve((0.012, 0.66), (0.03, end[1] - 0.02), end)]
    chest.metal += np.float32(random.uniform(0.35, 0.6)) * chest.canvas.strokes([(line, 0.0065, 255)])


def _pacemaker(chest: Chest, random: np.random.Generator) -> None:
    x, y = random.uniform(0.24, 0.30), random.uniform(0.19, 0.25)
    angles = np.linspace(0, 2 * np.pi, 25)
    can = [
        (
            x + 0.045 * np.sign(np.cos(a)) * abs(np.cos(a)) ** 0.6,
            y + 0.038 * np.sign(np.sin(a)) * abs(np.sin(a)) ** 0.6,
        )
        for a in angles
    ]
    lead = _curve((x, y - 0.03), (0.0, 0.15), (0.05, chest.base[1.0] - 0.04))
    chest.metal += np.float32(2.5) * chest.canvas.areas([(can, 255)])
    chest.metal += np.float32(0.9) * chest.canvas.strokes([(lead, 0.0042, 255)])


def _curve(start: Point, middle: Point, end: Point) -> list[Point]:
    """Return points on a quadratic Bézier curve."""
    return [
        (
            (1 - t) ** 2 * start[0] + 2 * t * (1 - t) * middle[0] + t**2 * end[0],
            (1 - t) ** 2 * start[1] + 2 * t * (1 - t) * middle[1] + t**2 * end[1],
        )
        for t in np.linspace(0, 1, 16)
    ]
