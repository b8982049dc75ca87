"""Turn path lengths into an image: Beer–Lambert attenuation, scatter, quantum noise, the machine's processing."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from emx_training.phantoms.anatomy import Chest
from emx_training.phantoms.canvas import Field
from emx_training.phantoms.site import Range, Site

_SCATTER_REACH = 0.09
"""Standard deviation of the distance that scattered photons travel, as a fraction of the image."""

_STANDARD = 160
"""Pixels along each side to which the number of photons refers."""

_COARSE = 40
"""Pixels along each side of the raster for scatter, which is smooth."""


def exposed(chest: Chest, site: Site, random: np.random.Generator) -> NDArray[np.uint8]:
    """Return the radiograph, (size, size) uint8, bright where it is dense (DICOM's MONOCHROME2)."""

    def draw(span: Range) -> np.float32:
        return np.float32(random.uniform(*span))

    depth = draw(site.soft) * chest.tissue() + draw(site.bone) * np.clip(chest.bone, 0, None) + chest.metal
    primary = np.exp(-depth)
    size = chest.canvas.size
    blur = float(draw(site.blur)) * size
    if blur > 0.25:
        primary = gaussian_filter(primary, blur, truncate=3.0)
    arrived = primary + _scattered(primary, float(draw(site.scatter)))
    # Log-uniform, as dose is.
    photons = np.exp(random.uniform(*np.log(site.photons)))
    # A smaller pixel catches fewer photons. There are so many that a normal distribution fits their number.
    caught = np.clip(arrived * np.float32(photons * (_STANDARD / size) ** 2), 1, None)
    signal = -np.log(np.clip(caught + np.sqrt(caught) * _noise(size, random), 1, None))
    sharpening = float(draw(site.sharpening))
    if sharpening > 0.02:
        signal = signal + np.float32(sharpening) * (signal - gaussian_filter(signal, 0.008 * size, truncate=2.5))
    return _displayed(signal, site, random)


def _noise(size: int, random: np.random.Generator) -> Field:
    """Return standard normal noise, (size, size). The generator advances equally for every size.

    So a seed shows the same chest at each resolution.
    """
    other = random.spawn(1)[0]
    noise = random.standard_normal((_STANDARD, _STANDARD), dtype=np.float32)
    return noise if size == _STANDARD else other.standard_normal((size, size), dtype=np.float32)


def _scattered(primary: Field, share: float) -> Field:
    """Return the scattered photons: on average, ``share`` of all photons at the detector."""
    size = primary.shape[0]
    coarse = np.asarray(Image.fromarray(primary).resize((_COARSE, _COARSE), Image.Resampling.BOX))
    # Air beside the patient is bright but scatters nothing, so it is clipped to four times the median.
    level = np.median(coarse)
    spread = gaussian_filter(np.minimum(coarse, 4 * level), _SCATTER_REACH * _COARSE, mode="nearest")
    smooth = np.asarray(Image.fromarray(spread).resize((size, size), Image.Resampling.BICUBIC))
    return np.float32(share / (1 - share)) * smooth


def _displayed(signal: Field, site: Site, random: np.random.Generator) -> NDArray[np.uint8]:
    """Apply the display window and curve. As on real machines, the middle of the image sets the window."""
    size = signal.shape[0]
    middle = signal[size // 4 : -size // 8 : 2, size // 5 : -size // 5 : 2]
    darkest, high = np.percentile(middle, (random.uniform(*site.black), random.uniform(*site.white)))
    low = darkest - random.uniform(*site.latitude) * (high - darkest)
    shown = np.clip((signal - low) / max(high - low, 1e-3), 0, 1) ** np.float32(random.uniform(*site.gamma))
    if random.uniform() < site.collimated:
        shown *= _field(shown.shape[0], random)
    return (shown * 255).round().astype(np.uint8)


def _field(size: int, random: np.random.Generator) -> Field:
    """Return the collimator's opening: 1 inside, 0 beyond its edges."""
    left, upper, right, lower = random.uniform(0.0, 0.055, 4) * (random.uniform(size=4) < 0.6)
    at = (np.arange(size, dtype=np.float32) + 0.5) / size
    across = (at > left) & (at < 1 - right)
    down = (at > upper) & (at < 1 - lower)
    return (down[:, None] & across[None, :]).astype(np.float32)
