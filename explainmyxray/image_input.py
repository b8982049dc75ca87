"""What is taken for a radiograph, by the local model and by the client alike."""

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from emx_shared.imaging import BadImage

XRay = str | Path | bytes | Image.Image | npt.NDArray[Any] | BinaryIO
"""A path, a file's bytes, an open file, a PIL image, or an array: uint8 or uint16 (height, width), uint8
(height, width, 3)."""


def file_bytes(image: XRay) -> bytes:
    """The bytes of an image's file; pixels become PNG. Raises BadImage, OSError."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        return _png(_picture(image))
    return _png(image) if isinstance(image, Image.Image) else image.read()


def _png(picture: Image.Image) -> bytes:
    """Pixels take the same way as files, so that they mean the same."""
    stream = io.BytesIO()
    try:
        picture.save(stream, format="PNG", compress_level=1, exif=picture.getexif())
    except (OSError, ValueError) as error:  # a mode that PNG hasn't, pixels that can't be loaded, or none
        raise BadImage(f"This PIL image can't be read ({error}): convert it to L, I;16 or RGB.") from None
    return stream.getvalue()


def _picture(pixels: npt.NDArray[Any]) -> Image.Image:
    kind = f"{pixels.dtype.name}, {pixels.ndim}-dimensional"
    if kind == "uint16, 2-dimensional":
        return Image.fromarray(pixels.astype(np.uint16))  # in this machine's byte order
    if kind == "uint8, 2-dimensional" or (kind == "uint8, 3-dimensional" and pixels.shape[2] == 3):
        return Image.fromarray(pixels)
    raise BadImage(
        f"An array of {pixels.dtype} with shape {pixels.shape} can't be read: give uint8 or uint16 of shape "
        "(height, width), or uint8 of shape (height, width, 3)."
    )
