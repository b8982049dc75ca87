"""What is accepted as a radiograph, by the local model and by the clients alike."""

import asyncio
import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from emx_shared.imaging import BadImage

XRay = str | Path | bytes | Image.Image | npt.NDArray[Any] | BinaryIO
"""A path, a file's bytes, an open binary file, a PIL image, or an array.

Arrays are uint8 or uint16 of shape (height, width), or uint8 of shape (height, width, 3) in RGB.
"""


class UnreadableFile(BadImage, OSError):
    """The image's file can't be opened or read. The text doesn't contain its name, which may name a patient."""


def file_bytes(image: XRay) -> bytes:
    """Return the bytes of an image's file. Pixels become a PNG file.

    Raises:
        BadImage: The pixels have a type or shape that isn't accepted.
        UnreadableFile: The file can't be opened or read.
    """
    try:
        if isinstance(image, str | Path):
            return Path(image).read_bytes()
        if hasattr(image, "read"):
            image = image.read()
    except (OSError, ValueError) as error:  # ValueError: a closed file, or a null byte in a path
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UnreadableFile(f"The image's file can't be read: {reason}.") from error
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray):
        return _png(_picture(image))
    if isinstance(image, Image.Image):
        return _png(image)
    raise BadImage(
        f"An image can't be a {type(image).__name__}: use a path, bytes, a file opened in binary mode, a PIL "
        "image or a NumPy array."
    )


async def async_file_bytes(image: XRay) -> bytes:
    """Return the bytes of an image's file without blocking the event loop.

    Raises:
        BadImage: The pixels have a type or shape that isn't accepted.
        UnreadableFile: The file can't be opened or read.
    """
    return await asyncio.to_thread(file_bytes, image)


def _png(picture: Image.Image) -> bytes:
    """Encode pixels, so that they take the same way as files and mean the same."""
    stream = io.BytesIO()
    try:
        picture.save(stream, format="PNG", compress_level=1, exif=picture.getexif())
    except (OSError, ValueError) as error:  # a mode that PNG lacks, or pixels that can't be loaded
        raise BadImage(f"This PIL image can't be read ({error}): convert it to L, I;16 or RGB.") from None
    return stream.getvalue()


def _picture(pixels: npt.NDArray[Any]) -> Image.Image:
    kind = f"{pixels.dtype.name}, {pixels.ndim}-dimensional"
    if kind == "uint16, 2-dimensional":
        return Image.fromarray(pixels.astype(np.uint16))  # in this machine's byte order
    if kind == "uint8, 2-dimensional" or (kind == "uint8, 3-dimensional" and pixels.shape[2] == 3):
        return Image.fromarray(pixels)
    raise BadImage(
        f"An array of {pixels.dtype} with shape {pixels.shape} can't be read: use uint8 or uint16 of shape "
        "(height, width), or uint8 of shape (height, width, 3)."
    )
