"""A chest without findings: the centimetres of tissue, air and bone that each ray passes through.

The image is assumed to be 40 cm wide. Lengths in the image plane are fractions of the image, depths are
centimetres.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from emx_training.phantoms.canvas import Canvas, Field, Point, Points, Stroke

SIDES = (-1.0, 1.0)
"""Signs of x: the patient's right is on the image's left, at negative x, and the left at positive x."""

AERATED = 0.78
"""Centimetres of soft tissue that a centimetre of lung lacks: lung has about 0.22 of its density."""

_LUNG_DEPTH = 12.5
_HEART_DEPTH = 10.5
_VESSEL_DEPTH = 2.4
"""Depths at the deepest place in centimetres; that of vessels is the widest vessel's."""

_TRUNKS, _FORKS, _WIDEST = 8, 3, 0.0125
"""Vessels that leave a hilum, how often each forks, and the widest, as a fraction of the image."""


class Chest:
    """The organs of one chest on a canvas. Findings change ``air``, ``soft`` and ``vessels`` in place.

    Attributes:
        canvas: the image plane.
        half: half of the inner width of the thorax.
        apex: height of the lungs' tops.
        base: height of each diaphragm's dome, by side.
        lungs: where lung is visible beside heart and mediastinum, 0 to 1, by side.
        air: centimetres of lung along each ray.
        soft: centimetres of soft tissue that findings add.
        bone: centimetres of bone.
        vessels: centimetres of vessel, where there is lung around them.
        metal: optical depth of devices and markers.
        heart: soft silhouette of the heart, 0 to 1.
        occupied: where an opacity would be hidden or overlap: heart, mediastinum, and findings so far.
    """

    def __init__(
        self,
        canvas: Canvas,
        random: np.random.Generator,
        *,
        heart_ratio: float,
        magnification: float,
        raised: Mapping[float, float],
    ) -> None:
        """Draw the organs.

        Args:
            canvas: the image plane.
            random: decides the anatomy.
            heart_ratio: width of the heart over that of the thorax, before magnification.
            magnification: of the heart.
            raised: how much higher each diaphragm stands, as a fraction of the image, by side.
        """
        self.canvas = canvas
        uniform = random.uniform
        self.half = uniform(0.36, 0.405)
        self.apex = uniform(0.085, 0.13)
        base = uniform(0.67, 0.74)
        self.base = {-1.0: base - uniform(0.01, 0.04) - raised[-1.0], 1.0: base - raised[1.0]}
        self._heart_ratio = heart_ratio
        self._thickness = uniform(17.5, 23.0)
        lungs = {sign: self._lung(sign, uniform(0.035, 0.075), uniform(0.12, 0.16)) for sign in SIDES}
        mediastinum = self._mediastinum(random)
        self.heart, heart_depth = self._heart(random, magnification)
        seen = (1 - mediastinum) * (1 - self.heart)
        self.lungs = {sign: lungs[sign] * seen for sign in SIDES}
        rounded = 0.62 + 0.38 * np.sqrt(np.clip(1 - np.square((np.abs(canvas.x) / self.half - 0.5) / 0.62), 0, 1))
        self.air: Field = np.clip(
            _LUNG_DEPTH * uniform(0.85, 1.05) * (lungs[-1.0] + lungs[1.0]) * rounded * (1 - mediastinum)
            - heart_depth,
            0,
            None,
        ).astype(np.float32)
        self._thick = self._body(random)
        self._add_abdomen(random)
        self.bone = self._bones(random)
        self.vessels = self._vessel_tree(random)
        self.soft: Field = np.zeros_like(self.air)
        self.metal: Field = np.zeros_like(self.air)
        self.occupied = (self.heart > 0.4) | (mediastinum > 0.4)

    def tissue(self) -> Field:
        """Return the centimetres of soft tissue along each ray."""
        seen_in = np.clip(self.air / 6, 0, 1)
        depth = self._thick - AERATED * self.air + AERATED * self.vessels * seen_in + self.soft
        return np.clip(depth, 0, None)

    def wall(self) -> Field:
        """Return the distance of the lung's outer border from the midline at each height."""
        down = np.clip((self.canvas.y - self.apex) / 0.30, 0, 1)
        lower = np.clip((self.canvas.y - self.apex) / (self.base[1.0] - self.apex), 0, 1.3)
        return np.float32(self.half) * (
            (0.12 + 0.88 * np.sqrt(1 - np.square(1 - down))) * (0.90 + 0.10 * lower)
        ).astype(np.float32)

    # Soft tissue

    def _lung(self, sign: float, curve: float, crest: float) -> Field:
        """Return a lung without heart and mediastinum; its domed floor is highest ``crest`` from the midline."""
        across = self.canvas.x * np.float32(sign)
        off = (across - np.float32(crest)) / np.float32(self.half - crest)
        lateral = np.clip(off, 0, 1.2)
        floor = self.base[sign] + curve * np.square(off) + 0.06 * lateral**3
        inside = self.canvas.inside
        return (
            inside(self.wall() - across)
            * inside(across - np.float32(0.02))
            * inside((floor - self.canvas.y).astype(np.float32), edge=0.003)
            * inside(self.canvas.y - np.float32(self.apex))
        )

    def _mediastinum(self, random: np.random.Generator) -> Field:
        x, y = self.canvas.x, self.canvas.y
        draw = random.uniform(size=10).astype(np.float32)
        right = 0.040 + 0.014 * draw[0] + 0.012 * np.exp(-np.square((y - 0.42) / 0.09))
        left = 0.044 + 0.012 * draw[1] + 0.016 * np.exp(-np.square((y - 0.40) / 0.06))
        column = self.canvas.inside(np.where(x < 0, right + x, left - x).astype(np.float32))
        centre = (0.045 + 0.012 * float(draw[2]), 0.295 + 0.03 * float(draw[3]))
        knob = self.canvas.ellipse(centre, (0.036 + 0.012 * float(draw[4]), 0.046))
        hila = np.zeros_like(x)
        for sign, rank in ((-1.0, 5), (1.0, 6)):
            at = (sign * (0.062 + 0.015 * float(draw[rank])), 0.425 - 0.018 * sign)
            hila = np.maximum(hila, 0.75 * np.exp(-np.square(self.canvas.ellipse(at, (0.032, 0.055), 0.3 * sign))))
        total = np.maximum(column, self.canvas.inside((1 - knob) * np.float32(0.04)))
        return np.clip(np.maximum(total, hila), 0, 1)

    def _heart(self, random: np.random.Generator, magnification: float) -> tuple[Field, Field]:
        """Return the soft silhouette and the depth in cm of a heart whose apex points to the patient's left."""
        width = 2 * self.half * self._heart_ratio * magnification
        right = width * random.uniform(0.28, 0.34)
        floor = max(self.base[1.0], self.base[-1.0]) + 0.012
        high = random.uniform(0.235, 0.27) * (0.75 + 0.25 * width / (0.86 * self.half))
        left_centre = ((width - right) * 0.36, floor - 0.42 * high)
        left = self.canvas.ellipse(left_centre, ((width - right) * 0.70, high * 0.50), turn=0.55)
        atrium = self.canvas.ellipse((-right * 0.28, floor - 0.47 * high), (right * 0.74, high * 0.52))
        radius = np.minimum(left, atrium)
        silhouette = self.canvas.inside((1 - radius) * np.float32(0.10))
        depth = _HEART_DEPTH * np.sqrt(np.clip(1 - np.square(radius), 0, 1))
        return silhouette, np.maximum(depth, 6.0 * silhouette)

    def _body(self, random: np.random.Generator) -> Field:
        """Return the thickness of the whole patient, in cm."""
        x, y = self.canvas.x, self.canvas.y
        fat = random.uniform(0.045, 0.085)
        side = self.half + fat
        neck, slope = random.uniform(0.075, 0.10), random.uniform(-0.02, 0.03)
        half_outline = [
            (neck, -0.25), (neck + 0.005, 0.0), (neck + 0.05, 0.055 + slope), (0.27, 0.095 + slope),
            (0.40, 0.14 + slope), (0.47, 0.21), (0.50, 0.30), (0.505, 0.42), (side + 0.045, 0.40),
            (side + 0.008, 0.50), (side, 0.65), (side + 0.012, 0.85), (side + 0.02, 1.3),
        ]  # fmt: skip
        outline = [*half_outline, *((-px, py) for px, py in reversed(half_outline))]
        body = self._within = self.canvas.areas([(_rounded(outline), 255)])
        across = np.clip(np.abs(x) / np.float32(side + 0.09), 0, 1)
        deep = np.sqrt(1 - np.float32(0.80) * np.square(across))
        taper = np.float32(0.64) + np.float32(0.36) * np.clip((y - np.float32(0.02)) / np.float32(0.26), 0, 1)
        thick = np.float32(self._thickness) * body * deep * taper
        if random.uniform() < 0.42:
            at, half = (random.uniform(0.17, 0.22), random.uniform(0.58, 0.68)), random.uniform(0.11, 0.16)
            for sign in SIDES:
                breast = self.canvas.ellipse((sign * at[0], at[1]), (half, half * 0.85))
                thick += np.float32(3.2) * np.sqrt(np.clip(1 - np.square(breast), 0, 1)) * body
        return thick.astype(np.float32)

    def _add_abdomen(self, random: np.random.Generator) -> None:
        """Thicken what is below the diaphragms, and add gas in the stomach and the trachea."""
        x, y = self.canvas.x, self.canvas.y
        below = self.canvas.inside(y - np.float32(self.base[1.0] - 0.01), edge=0.02)
        self._thick = self._thick * (1 + np.float32(random.uniform(0.02, 0.12)) * below)
        draw = random.uniform(size=6)
        if draw[0] < 0.7:
            centre = (0.12 + 0.07 * draw[1], self.base[1.0] + 0.055 + 0.02 * draw[2])
            bubble = self.canvas.ellipse(centre, (0.035 + 0.035 * draw[3], 0.018 + 0.020 * draw[4]))
            level = self.canvas.inside(np.float32(centre[1] + 0.012) - y)
            gas = self.canvas.inside((1 - bubble) * np.float32(0.03)) * level * (1 - np.clip(self.air / 3, 0, 1))
            self._thick -= np.float32(2.5 + 3 * draw[5]) * gas
        trachea = np.exp(-np.square((x - np.float32(0.004 * draw[1])) / np.float32(0.0125)))
        self._thick -= np.float32(1.9) * trachea * self.canvas.inside(np.float32(0.385) - y, edge=0.01)

    # Bones

    def _bones(self, random: np.random.Generator) -> Field:
        behind, front = self._ribs(random)
        bone = 0.80 * self.canvas.strokes(behind) + 0.55 * self.canvas.strokes(front)
        shoulder = self.canvas.strokes(list(self._clavicles(random)))
        blades = self.canvas.areas(list(self._scapulae(random)))
        x, y = self.canvas.x, self.canvas.y
        phase = np.float32(random.uniform(0, 6.3))
        discs = 0.78 + 0.22 * np.cos(2 * np.pi * y / np.float32(random.uniform(0.052, 0.062)) + phase)
        spine = np.float32(1.35) * self.canvas.inside(np.float32(random.uniform(0.030, 0.037)) - np.abs(x)) * discs
        strength = np.float32(random.uniform(0.75, 1.3))
        return (strength * (bone + 0.9 * shoulder + 0.45 * blades + spine) * self._within).astype(np.float32)

    def _ribs(self, random: np.random.Generator) -> tuple[list[Stroke], list[Stroke]]:
        """Return posterior and anterior parts, each a band with denser edges, like cortical bone."""
        behind: list[Stroke] = []
        front: list[Stroke] = []
        spacing, width = random.uniform(0.056, 0.064), random.uniform(0.0165, 0.0215)
        fall, tilt = random.uniform(0.9, 1.2), random.uniform(-0.006, 0.006)
        t = np.linspace(0, 1, 14)
        for sign in SIDES:
            for rank in range(10):
                top = self.apex - 0.035 + spacing * rank + sign * tilt
                reach = self.half * min(1.0, 0.52 + 0.13 * rank) + 0.008
                drop = fall * min(0.035 + 0.017 * rank, 0.125)
                x = 0.034 + (reach - 0.034) * np.sin(t * np.pi / 2) ** 0.9
                y = top - 0.010 * np.sin(np.pi * np.clip(2.2 * t, 0, 1)) + drop * t**1.9
                points = np.stack([sign * x, y], axis=1)
                behind += [(points, width, 255), (points, width * 0.62, 175)]
                if rank >= 8:
                    continue
                inner = self.half * (0.40 + 0.045 * rank)
                x_front = reach - (reach - inner) * (1 - np.cos(t * np.pi / 2))
                y_front = y[-1] + fall * (0.045 + 0.014 * rank) * np.sin(t * np.pi / 2)
                points = np.stack([sign * x_front, y_front], axis=1)
                front += [(points, width * 1.05, 255), (points, width * 0.68, 185)]
        return behind, front

    def _clavicles(self, random: np.random.Generator) -> Iterator[Stroke]:
        height, width = self.apex + random.uniform(0.045, 0.08), random.uniform(0.017, 0.022)
        t = np.linspace(0, 1, 12)
        for sign in SIDES:
            x = 0.028 + 0.33 * t
            y = (
                height
                - random.uniform(0.05, 0.08) * t
                + 0.014 * np.sin(t * 2 * np.pi)
                + random.uniform(-0.008, 0.008)
            )
            points = np.stack([sign * x, y], axis=1)
            yield points, width, 255
            yield points, width * 0.60, 150

    def _scapulae(self, random: np.random.Generator) -> Iterator[tuple[Points, int]]:
        edge = self.half + random.uniform(-0.02, 0.03)
        for sign in SIDES:
            corners = [(edge - 0.015, 0.20), (edge + 0.085, 0.165), (edge + 0.075, 0.26), (edge + 0.025, 0.43),
                       (edge - 0.005, 0.40)]  # fmt: skip
            yield [(sign * px, py) for px, py in corners], 255
            inset = [(0.82 * px + 0.18 * (edge + 0.035), 0.82 * py + 0.18 * 0.28) for px, py in corners]
            yield [(sign * px, py) for px, py in inset], 120
            head = [(edge + 0.09 + 0.035 * np.cos(a), 0.185 + 0.042 * np.sin(a)) for a in np.arange(0, 6.3, 0.5)]
            yield [(sign * px, py) for px, py in head], 255

    # Vessels

    def _vessel_tree(self, random: np.random.Generator) -> Field:
        """Draw vessels that leave the hila, fork and thin out; more of them run down than up."""
        fan = np.linspace(-1.2, 1.5, _TRUNKS)
        sign = np.repeat(np.array(SIDES), _TRUNKS)
        angle = np.tile(fan, 2) + random.normal(0, 0.11, 2 * _TRUNKS)
        start = np.stack(
            [0.055 + random.uniform(0, 0.02, len(sign)), 0.425 - 0.018 * sign + 0.04 * np.sin(angle)], axis=1
        )
        width = random.uniform(0.0095, _WIDEST, len(sign))
        strokes: list[Stroke] = []
        for _ in range(_FORKS + 1):
            length, bend = random.uniform(0.045, 0.075, len(sign)), random.normal(0, 0.16, len(sign))
            middle = start + 0.5 * _towards(angle, length)
            end = middle + 0.5 * _towards(angle + bend, length)
            mirrored = (
                np.stack([start, middle, end], axis=1) * np.stack([sign, np.ones(len(sign))], axis=1)[:, None]
            )
            strokes += [
                (points, wide, min(255, round(255 * wide / _WIDEST)))
                for points, wide in zip(mirrored, width.tolist(), strict=True)
            ]
            # Each vessel forks into a thicker and a thinner one.
            spread = random.uniform(0.2, 0.5, len(sign))
            thinner = np.concatenate(
                [random.uniform(0.70, 0.85, len(sign)), random.uniform(0.55, 0.75, len(sign))]
            )
            angle = np.concatenate([angle + bend - 0.6 * spread, angle + bend + spread])
            start, sign, width = np.tile(end, (2, 1)), np.tile(sign, 2), np.tile(width, 2) * thinner
        return np.float32(_VESSEL_DEPTH) * self.canvas.strokes(sorted(strokes, key=lambda stroke: stroke[1]))


def _rounded(corners: Sequence[Point]) -> Points:
    """Return a polygon's outline with rounded corners."""
    closed = np.array([*corners, corners[0]])
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    dense = np.linspace(0, along[-1], 240, endpoint=False)
    outline = np.stack([np.interp(dense, along, closed[:, axis]) for axis in (0, 1)], axis=1)
    return np.mean([np.roll(outline, shift, axis=0) for shift in range(-3, 4)], axis=0)


def _towards(angle: NDArray[np.float64], length: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return steps, (n, 2). An angle of 0 points outwards, a positive one downwards."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * length[:, None]
