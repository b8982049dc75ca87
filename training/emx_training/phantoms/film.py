"""From path lengths to a picture: Beer–Lambert attenuation, scatter, quantum noise, the machine's processing."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from emx_training.phantoms.anatomy import Chest
from emx_training.phantoms.canvas import Field
from emx_training.phantoms.site import Range, Site

_SCATTER_REACH = 0.09
"""Standard deviation of the scattered photons' landing place, as a fraction of the image."""

_STANDARD = 160
"""Pixels along a side that the number of photons is given for."""

_COARSE = 40
"""Pixels along a side that the scatter, which is smooth, is computed on."""


def exposed(chest: Chest, site: Site, random: np.random.Generator) -> NDArray[np.uint8]:
    """The radiograph, (size, size), bright where it is dense (DICOM's MONOCHROME2)."""

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
    # A smaller pixel catches fewer of them; of many, their number is as good as normal.
    caught = np.clip(arrived * np.float32(photons * (_STANDARD / size) ** 2), 1, None)
    signal = -np.log(np.clip(caught + np.sqrt(caught) * _noise(size, random), 1, None))
    sharpening = float(draw(site.sharpening))
    if sharpening > 0.02:
        signal = signal + np.float32(sharpening) * (signal - gaussian_filter(signal, 0.008 * size, truncate=2.5))
    return _displayed(signal, site, random)


def _noise(size: int, random: np.random.Generator) -> Field:
    """Standard normal, (size, size). The generator moves on by as much whatever the size: all else is alike."""
    other = random.spawn(1)[0]
    noise = random.standard_normal((_STANDARD, _STANDARD), dtype=np.float32)
    return noise if size == _STANDARD else other.standard_normal((size, size), dtype=np.float32)


def _scattered(primary: Field, share: float) -> Field:
    """So many photons beside the primary ones that ``share`` of all were scattered, on average."""
    size = primary.shape[0]
    coarse = np.asarray(Image.fromarray(primary).resize((_COARSE, _COARSE), Image.Resampling.BOX))
    # Air beside the patient scatters nothing, however bright: what is scattered is what tissue let through.
    level = np.median(coarse)
    spread = gaussian_filter(np.minimum(coarse, 4 * level), _SCATTER_REACH * _COARSE, mode="nearest")
    smooth = np.asarray(Image.fromarray(spread).resize((size, size), Image.Resampling.BICUBIC))
    return np.float32(share / (1 - share)) * smooth


def _displayed(signal: Field, site: Site, random: np.random.Generator) -> NDArray[np.uint8]:
    """The window is set by the middle of the picture, as machines do: air beside the patient is black."""
    size = signal.shape[0]
    middle = signal[size // 4 : -size // 8 : 2, size // 5 : -size // 5 : 2]
    darkest, high = np.percentile(middle, (random.uniform(*site.black), random.uniform(*site.white)))
    low = darkest - random.uniform(*site.latitude) * (high - darkest)
    shown = np.clip((signal - low) / max(high - low, 1e-3), 0, 1) ** np.float32(random.uniform(*site.gamma))
    if random.uniform() < site.collimated:
        shown *= _field(shown.shape[0], random)
    return (shown * 255).round().astype(np.uint8)


def _field(size: int, random: np.random.Generator) -> Field:
    """The collimator's opening: black beyond it, on one side or more."""
    left, upper, right, lower = random.uniform(0.0, 0.055, 4) * (random.uniform(size=4) < 0.6)
    at = (np.arange(size, dtype=np.float32) + 0.5) / size
    across = (at > left) & (at < 1 - right)
    down = (at > upper) & (at < 1 - lower)
    return (down[:, None] & across[None, :]).astype(np.float32)
