"""Where a phantom is taken: the physics of the machine and the habits of the people who run it.

There are three sites. *alpha* is trained on. *beta* is for development: thresholds and choices may look at it.
*gamma* is unseen: it was frozen before the first training run (``tests/unit/training/test_phantoms.py`` has
the hash of the code), and is evaluated only at the end.
"""

from dataclasses import dataclass
from typing import Literal

SiteName = Literal["alpha", "beta", "gamma"]

Range = tuple[float, float]
"""Lowest and highest; each phantom draws uniformly between them."""


@dataclass(frozen=True)
class Site:
    """A radiography room.

    Attributes:
        soft, bone: linear attenuation of soft tissue and of bone, per cm; both fall as the tube voltage rises,
            bone's faster (NIST tables at the beam's effective energy).
        scatter: share of the photons at the detector that were scattered; a grid lowers it.
        photons: quanta in an unattenuated pixel of 1/160 of the image; they decide the quantum noise.
        blur: standard deviation of focal spot, motion and detector together, as a fraction of the image.
        sharpening: strength of the unsharp mask that the machine applies.
        gamma: exponent of the display curve.
        black, white: ends of the display window, in percentiles of the image's middle.
        latitude: how much darker than ``black`` the window begins, as a share of its width: lungs are grey.
        turn: degrees that the patient may be turned in the image plane, either way.
        scale: size of the chest in the image.
        shift: how far the chest may be off the centre, as a fraction of the image.
        magnification: of the heart, which is far from the detector in an anteroposterior view.
        raised: how much higher the diaphragms stand, as a fraction of the image: patients who lie breathe in less.
        collimated, devices, marked: how often the field is narrowed, there are devices on or in the patient, and a
            side marker is in the field.
        counts: how often 0, 1, 2, 3 and 4 findings are chosen; a finding without a free place is left out.
    """

    soft: Range
    bone: Range
    scatter: Range
    photons: Range
    blur: Range
    sharpening: Range
    gamma: Range
    black: Range
    white: Range
    latitude: Range
    turn: float
    scale: Range
    shift: float
    magnification: Range
    raised: Range
    collimated: float
    devices: float
    marked: float
    counts: tuple[float, float, float, float, float]


SITES: dict[SiteName, Site] = {
    # Posteroanterior at 110 to 125 kV with a grid, storage phosphor.
    "alpha": Site(
        soft=(0.190, 0.205),
        bone=(0.34, 0.46),
        scatter=(0.30, 0.50),
        photons=(20_000, 90_000),
        blur=(0.0012, 0.0028),
        sharpening=(0.0, 0.35),
        gamma=(0.85, 1.20),
        black=(0.2, 2.0),
        white=(97.0, 99.7),
        latitude=(0.10, 0.32),
        turn=4.0,
        scale=(0.92, 1.06),
        shift=0.03,
        magnification=(1.0, 1.03),
        raised=(-0.01, 0.03),
        collimated=0.25,
        devices=0.25,
        marked=0.5,
        counts=(0.20, 0.32, 0.27, 0.15, 0.06),
    ),
    # Posteroanterior at 125 to 140 kV, flat panel, much processed.
    "beta": Site(
        soft=(0.180, 0.192),
        bone=(0.30, 0.36),
        scatter=(0.22, 0.38),
        photons=(60_000, 200_000),
        blur=(0.0006, 0.0016),
        sharpening=(0.35, 0.9),
        gamma=(1.05, 1.35),
        black=(0.5, 3.0),
        white=(95.5, 99.0),
        latitude=(0.06, 0.20),
        turn=5.0,
        scale=(0.96, 1.10),
        shift=0.035,
        magnification=(1.0, 1.02),
        raised=(-0.02, 0.02),
        collimated=0.10,
        devices=0.15,
        marked=0.9,
        counts=(0.30, 0.34, 0.22, 0.10, 0.04),
    ),
    # Anteroposterior at the bedside, 80 to 95 kV without a grid: more scatter, more noise, more bone, more tubes.
    "gamma": Site(
        soft=(0.205, 0.222),
        bone=(0.44, 0.58),
        scatter=(0.45, 0.62),
        photons=(16_000, 45_000),
        blur=(0.0022, 0.0042),
        sharpening=(0.0, 0.6),
        gamma=(0.75, 1.05),
        black=(0.1, 1.5),
        white=(98.0, 99.9),
        latitude=(0.15, 0.40),
        turn=6.5,
        scale=(0.90, 1.08),
        shift=0.045,
        magnification=(1.03, 1.08),
        raised=(0.0, 0.05),
        collimated=0.55,
        devices=0.65,
        marked=0.7,
        counts=(0.14, 0.28, 0.30, 0.19, 0.09),
    ),
}
