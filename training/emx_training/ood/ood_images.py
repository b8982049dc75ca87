"""Out-of-distribution images, each with a name: the demo model must decline to read them.

Real radiographs under crops, flips and exposures; photographs and textures (scikit-image); non-chest DICOM files
(pydicom's own test files); text, noise and blank pages. Nothing is fitted to any of them.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from emx_shared.imaging import BadImage, decode

_SIDE = 512
"""Pixels along each side of a drawn image."""

_WORDS = (
    "Findings are described here for a page that no one has photographed. It is text and shows no chest. "
    "The quick brown fox jumps over the lazy dog, and the report of that is one line long. "
)

_CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "plain": lambda image: image,
    "mirrored": ImageOps.mirror,
    "upside-down": ImageOps.flip,
    "quarter-turn": lambda image: image.rotate(90, expand=True),
    "slight-turn": lambda image: image.rotate(7, Image.Resampling.BILINEAR),
    "middle": lambda image: _cropped(image, 0.12, 0.12, 0.88, 0.88),
    "upper-left": lambda image: _cropped(image, 0.0, 0.0, 0.75, 0.75),
    "lower-right": lambda image: _cropped(image, 0.25, 0.25, 1.0, 1.0),
    "left-lung": lambda image: _cropped(image, 0.5, 0.1, 1.0, 0.8),
    "bordered": lambda image: ImageOps.expand(image, image.width // 8),
    "bright": lambda image: ImageEnhance.Brightness(image).enhance(1.5),
    "dark": lambda image: ImageEnhance.Brightness(image).enhance(0.55),
    "hard": lambda image: ImageEnhance.Contrast(image).enhance(1.7),
    "soft": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "equalised": lambda image: ImageOps.equalize(image),
    "inverted": ImageOps.invert,
}


@dataclass(frozen=True)
class OodImage:
    """An image that isn't a phantom.

    Attributes:
        group: radiograph, photograph, dicom, text, noise or blank.
        name: unique in the group.
        image: of mode L.
    """

    group: str
    name: str
    image: Image.Image


def ood_images(radiographs: Path | None) -> Iterator[OodImage]:
    """Yield every out-of-distribution image.

    Args:
        radiographs: folder of real radiographs (PNG, JPEG, DICOM). If it is None or missing, that group is left
            out.
    """
    if radiographs and radiographs.is_dir():
        yield from _radiographs(radiographs)
    yield from _photographs()
    yield from _dicoms()
    yield from _texts()
    yield from _noises()
    yield from _blanks()


def _radiographs(folder: Path) -> Iterator[OodImage]:
    for path in sorted(folder.iterdir()):
        image = _picture(path)
        if image:
            for name, change in _CHANGES.items():
                yield OodImage("radiograph", f"{path.stem} {name}", change(image))


def _photographs() -> Iterator[OodImage]:
    """Yield the images in scikit-image's package; its synthetic head phantom is one of them."""
    import skimage.data

    for path in sorted(Path(skimage.data.__file__).parent.glob("*.[pjtg][npi][gf]")):
        image = _picture(path)
        if image:
            for name in ("plain", "middle"):
                yield OodImage("photograph", f"{path.stem} {name}", _CHANGES[name](image))


def _dicoms() -> Iterator[OodImage]:
    import pydicom.data

    folder = Path(pydicom.data.__file__).parent / "test_files"
    for path in sorted(folder.glob("*.dcm")):
        image = _dicom(path)
        if image:
            yield OodImage("dicom", path.stem, image)


def _texts() -> Iterator[OodImage]:
    for number in range(12):
        paper, ink = ("white", "black") if number % 2 else ("black", "white")
        page = Image.new("L", (_SIDE, _SIDE), paper)
        draw, font = ImageDraw.Draw(page), ImageFont.load_default(12 + 4 * number)
        across = 900 // (12 + 4 * number)
        text = _WORDS * 12
        lines = [text[at : at + across] for at in range(0, len(text), across)]
        draw.multiline_text((20, 20), "\n".join(lines[:40]), fill=ink, font=font)
        yield OodImage("text", f"size {12 + 4 * number}, {ink} on {paper}", page)


def _noises() -> Iterator[OodImage]:
    random = np.random.default_rng(7)
    for number in range(4):
        yield OodImage("noise", f"uniform {number}", _grey(random.uniform(0, 255, (_SIDE, _SIDE))))
        spread = 15 + 20 * number
        yield OodImage("noise", f"normal {spread}", _grey(random.normal(128, spread, (_SIDE, _SIDE))))
        cells = 3 * 2**number
        coarse = Image.fromarray(random.uniform(0, 255, (cells, cells)).astype(np.uint8))
        yield OodImage("noise", f"clouds {cells}", coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
        spots = random.uniform(size=(_SIDE, _SIDE)) < 0.01 * 2**number
        yield OodImage("noise", f"spots {number}", _grey(spots * 255.0))


def _blanks() -> Iterator[OodImage]:
    for value in (0, 40, 90, 128, 170, 215, 255):
        yield OodImage("blank", f"grey {value}", Image.new("L", (_SIDE, _SIDE), value))
    slope = np.tile(np.linspace(0, 255, _SIDE), (_SIDE, 1))
    for name, field in (("across", slope), ("down", slope.T), ("both", (slope + slope.T) / 2)):
        yield OodImage("blank", f"gradient {name}", _grey(field))
    at = np.linspace(-1, 1, _SIDE)
    yield OodImage("blank", "vignette", _grey(255 - 180 * np.hypot(at[None, :], at[:, None])))
    yield OodImage("blank", "disc", _grey(255.0 * (np.hypot(at[None, :], at[:, None]) < 0.6)))
    yield OodImage("blank", "stripes", _grey(127 + 127 * np.sin(40 * at)[None, :].repeat(_SIDE, axis=0)))


def _picture(path: Path) -> Image.Image | None:
    try:
        return decode(path.read_bytes()).image
    except BadImage:
        return None


def _dicom(path: Path) -> Image.Image | None:
    """Return the first frame, stretched to 8 bits, or None if its pixels can't be decoded here."""
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = pydicom.dcmread(path).pixel_array
    except Exception:  # pydicom's decoders raise any error of their libraries
        return None
    while pixels.ndim > 3 or (pixels.ndim == 3 and pixels.shape[2] != 3):
        pixels = pixels[0]
    if pixels.ndim == 3:
        pixels = pixels.mean(axis=2)
    if min(pixels.shape) < 32:
        return None
    low, high = float(pixels.min()), float(pixels.max())
    return _grey((pixels.astype(np.float64) - low) * (255 / max(high - low, 1)))


def _cropped(image: Image.Image, left: float, upper: float, right: float, lower: float) -> Image.Image:
    width, height = image.size
    return image.crop((round(left * width), round(upper * height), round(right * width), round(lower * height)))


def _grey(values: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
