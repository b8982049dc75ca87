"""PNG, JPEG and TIFF, by Pillow."""

import io
import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from emx_shared.imaging.refusals import BadImage, ImageTooLarge, check_size

Image.MAX_IMAGE_PIXELS = None  # the limit here is ours, and is checked before any pixel is decoded
warnings.filterwarnings("ignore", module=r"PIL\.")

_MAX_SCANS = 100
"""Of a progressive JPEG, which has about ten. Each costs a pass over all pixels, and can be a few bytes short."""
_MAX_EXIF_SEGMENTS = 20
"""Of a JPEG: 64 KiB each, one as a rule, and Pillow's time grows with their square."""
_TIFF_COMPRESSIONS = {
    "raw", "tiff_ccitt", "group3", "group4", "tiff_lzw", "tiff_jpeg", "jpeg", "tiff_adobe_deflate", "tiff_deflate",
    "packbits",
}  # fmt: skip
_TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT, _TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 262, 339, 322, 323
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _UNSIGNED = 0, 1, 1
_DEEP = ("I;16", "I;16B", "I", "F")
"""Pillow's modes of more than 8 bits."""
_STRIP = 2**20
"""Pixels that are worked on at a time."""


def _complete_pillow() -> None:
    """Teach Pillow 32 unsigned bits in big-endian order, and most deep white-is-zero layouts."""
    known = TiffImagePlugin.OPEN_INFO
    known[TiffImagePlugin.MM, _BLACK_IS_ZERO, (_UNSIGNED,), 1, (32,), ()] = ("I", "I;32BS")
    for (order, photometric, *layout), modes in list(known.items()):
        if photometric == _BLACK_IS_ZERO and modes[0] in _DEEP:
            known.setdefault((order, _WHITE_IS_ZERO, *layout), modes)  # type: ignore[arg-type]


_complete_pillow()


def read(data: bytes, kind: str, max_pixels: int) -> Image.Image:
    """Read a PNG, JPEG or TIFF (``kind``): mode L, upright. Raises BadImage."""
    if kind == "JPEG" and data.count(b"\xff\xda") > _MAX_SCANS:
        raise BadImage(f"The JPEG has more than {_MAX_SCANS} scans.")
    if kind == "JPEG" and data.count(b"Exif\0\0") > _MAX_EXIF_SEGMENTS:
        raise BadImage(f"The JPEG has more than {_MAX_EXIF_SEGMENTS} EXIF segments.")
    try:
        opened = Image.open(io.BytesIO(data), formats=[kind])
    except Exception:
        raise BadImage(f"The {kind}'s header is damaged, or of a sort that can't be read here.") from None
    check_size(*opened.size, max_pixels)
    try:
        if kind == "TIFF":
            return _tiff(opened, max_pixels)
        opened.load()
        gray = _grayscale(opened)
        gray.getexif()[ExifTags.Base.Orientation] = opened.getexif().get(ExifTags.Base.Orientation, 1)
        ImageOps.exif_transpose(gray, in_place=True)
        return gray
    except (BadImage, MemoryError):
        raise
    except Exception:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, …
        raise BadImage("The image is damaged or cut short.") from None


def _tiff(opened: Image.Image, max_pixels: int) -> Image.Image:
    """Read TIFF 6.0. Pillow turns it upright by itself, and inverts white-is-zero for up to 8 bits only."""
    tags = dict(opened.tag_v2)  # type: ignore[attr-defined]
    if getattr(opened, "is_animated", False):
        raise BadImage("The TIFF has several pages; one image is read.")
    if opened.info.get("compression") not in _TIFF_COMPRESSIONS:
        raise BadImage("The TIFF is compressed in a way that isn't accepted.")
    if tags.get(_TIFF_TILE_WIDTH, 0) * tags.get(_TIFF_TILE_LENGTH, 0) > max_pixels:
        raise ImageTooLarge(f"The TIFF's tiles have more pixels than the {max_pixels} that are accepted.")
    opened.load()
    unsigned = opened.mode == "I" and tags.get(_TIFF_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED
    gray = _grayscale(opened, unsigned)
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO and opened.mode in _DEEP:
        return ImageOps.invert(gray)
    return gray


def _grayscale(image: Image.Image, unsigned: bool = False) -> Image.Image:
    """Convert to mode L; more than 8 bits are stretched from the image's own minimum to its maximum.

    ``unsigned``: 32 bits, which Pillow takes for signed.
    """
    if image.mode in _DEEP:
        return _stretched(image, unsigned)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _by_strips(image, _on_black)
    return image.convert("L")


def _stretched(image: Image.Image, unsigned: bool) -> Image.Image:
    def values(strip: Image.Image) -> npt.NDArray[np.float32]:
        stored = np.asarray(strip)
        return (stored.view(np.uint32) if unsigned else stored).astype(np.float32)

    low, high = math.inf, -math.inf
    for _, strip in _strips(image):
        found = values(strip)
        if not (np.abs(found) < 1e30).all():
            raise BadImage("The image has pixels that are not numbers, or are too large.")
        low, high = min(low, float(found.min())), max(high, float(found.max()))
    scale = 255 / ((high - low) or 1)
    return _by_strips(image, lambda strip: Image.fromarray(((values(strip) - low) * scale).astype(np.uint8)))


def _on_black(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("L")


def _by_strips(image: Image.Image, grayscale: Callable[[Image.Image], Image.Image]) -> Image.Image:
    shown = Image.new("L", image.size)
    for top, strip in _strips(image):
        shown.paste(grayscale(strip), (0, top))
    return shown


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield some rows at a time, and where they begin: a copy of the whole may take hundreds of megabytes."""
    rows = max(_STRIP // image.width, 1)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))
