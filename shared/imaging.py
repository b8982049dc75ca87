"""Bytes to pixels: what is accepted, what is refused and why."""

import hashlib
import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from shared.report import ImageFacts

MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}
MIN_SIDE = 32
"""Pixels. Below this no chest could be read."""

Image.MAX_IMAGE_PIXELS = None  # the limit below is ours, and is checked before any pixel is decoded


class BadImage(ValueError):
    """The bytes can't be read as an image; the text says why, and quotes nothing of them."""


class NotAnImage(BadImage):
    """Not of a kind that is accepted."""


class ImageTooLarge(BadImage):
    """More bytes or pixels than are accepted."""


@dataclass(frozen=True)
class DecodedImage:
    """An upright 8-bit grayscale image (mode L) and the facts of its original.

    Width and height are those after EXIF orientation: the frame that every box refers to.
    """

    image: Image.Image
    facts: ImageFacts


def decode(data: bytes, max_bytes: int = 64 * 2**20, max_pixels: int = 50_000_000) -> DecodedImage:
    """Decode a whole PNG or JPEG. Raises BadImage: NotAnImage, ImageTooLarge, or itself for broken data."""
    if not data:
        raise BadImage("The file is empty.")
    if len(data) > max_bytes:
        raise ImageTooLarge(f"The file has {len(data)} bytes; at most {max_bytes} are accepted.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = Image.open(io.BytesIO(data), formats=list(MEDIA_TYPES))
    except UnidentifiedImageError:
        raise NotAnImage("The file is not a PNG or JPEG image.") from None
    except Exception:
        raise BadImage("The image's header is damaged.") from None
    width, height = opened.size
    if width * height > max_pixels:
        raise ImageTooLarge(f"The image has {width}×{height} pixels; at most {max_pixels} are accepted.")
    if min(width, height) < MIN_SIDE:
        raise BadImage(f"The image has {width}×{height} pixels; each side needs at least {MIN_SIDE}.")
    try:
        opened.load()
        upright = ImageOps.exif_transpose(opened) or opened
        gray = _grayscale(upright)
    except Exception:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, …
        raise BadImage("The image is damaged or cut short.") from None
    facts = ImageFacts(
        width=gray.width,
        height=gray.height,
        media_type=MEDIA_TYPES[opened.format or ""],
        sha256=hashlib.sha256(data).hexdigest(),
    )
    return DecodedImage(gray, facts)


def _grayscale(image: Image.Image) -> Image.Image:
    """Mode L; more than 8 bits are stretched from the image's own minimum to its maximum."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        values = np.asarray(image, dtype=np.float32)
        low, high = float(values.min()), float(values.max())
        return Image.fromarray(((values - low) * (255 / max(high - low, 1))).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        background = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(background, rgba).convert("L")
    return image.convert("L")
