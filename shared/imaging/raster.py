"""PNG, JPEG and TIFF, by Pillow."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from shared.imaging.refusals import BadImage, ImageTooLarge, check_size

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


def _complete_pillow() -> None:
    """Pillow lacks 32 unsigned bits in big-endian order, and most deep white-is-zero layouts."""
    known = TiffImagePlugin.OPEN_INFO
    known[TiffImagePlugin.MM, _BLACK_IS_ZERO, (_UNSIGNED,), 1, (32,), ()] = ("I", "I;32BS")
    for (order, photometric, *layout), modes in list(known.items()):
        if photometric == _BLACK_IS_ZERO and modes[0] in _DEEP:
            known.setdefault((order, _WHITE_IS_ZERO, *layout), modes)  # type: ignore[arg-type]


_complete_pillow()


def read(data: bytes, kind: str, max_pixels: int) -> Image.Image:
    """Mode L, upright. ``kind`` is PNG, JPEG or TIFF. Raises BadImage."""
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
        return _grayscale(ImageOps.exif_transpose(opened) or opened)
    except BadImage:
        raise
    except Exception:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, …
        raise BadImage("The image is damaged or cut short.") from None


def _tiff(opened: Image.Image, max_pixels: int) -> Image.Image:
    """TIFF 6.0. Pillow turns it upright by itself, and inverts white-is-zero for up to 8 bits only."""
    tags = dict(opened.tag_v2)  # type: ignore[attr-defined]
    if getattr(opened, "is_animated", False):
        raise BadImage("The TIFF has several pages; one image is read.")
    if opened.info.get("compression") not in _TIFF_COMPRESSIONS:
        raise BadImage("The TIFF is compressed in a way that isn't accepted.")
    if tags.get(_TIFF_TILE_WIDTH, 0) * tags.get(_TIFF_TILE_LENGTH, 0) > max_pixels:
        raise ImageTooLarge(f"The TIFF's tiles have more pixels than the {max_pixels} that are accepted.")
    opened.load()
    image: Image.Image = opened
    if image.mode == "I" and tags.get(_TIFF_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED:
        image = Image.fromarray(np.asarray(image).view(np.uint32).astype(np.float32))  # Pillow takes it for signed
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO and image.mode in _DEEP:
        return ImageOps.invert(_grayscale(image))
    return _grayscale(image)


def _grayscale(image: Image.Image) -> Image.Image:
    """Mode L; more than 8 bits are stretched from the image's own minimum to its maximum."""
    if image.mode in _DEEP:
        values = np.asarray(image, dtype=np.float32)
        if not (np.abs(values) < 1e30).all():
            raise BadImage("The image has pixels that are not numbers, or are too large.")
        low, high = float(values.min()), float(values.max())
        return Image.fromarray(((values - low) * (255 / ((high - low) or 1))).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        background = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(background, rgba).convert("L")
    return image.convert("L")
