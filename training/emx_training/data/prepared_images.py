"""Images in the form that training reads: upright, 8 bits, no larger than the model can use."""

import os
from pathlib import Path

from PIL import Image

from emx_shared.imaging import BadImage, decode


class CorruptImage(ValueError):
    """An image can't be used. The message says why."""


def prepare(source: Path, target: Path, size: int) -> None:
    """Decode an image, scale it down and write it as a grey PNG.

    More than 8 bits are stretched from the image's own minimum to its maximum, as the worker does at inference.
    The file appears whole or not at all.

    Args:
        source: PNG, JPEG, TIFF or DICOM.
        target: the PNG; its folder is created if necessary.
        size: longest side of the result, in pixels. A smaller image keeps its size.

    Raises:
        CorruptImage: if the source is missing or can't be decoded.
    """
    try:
        image = decode(source.read_bytes(), max_bytes=512 * 2**20).image
    except FileNotFoundError:
        raise CorruptImage("there is no such file") from None
    except (BadImage, OSError) as error:
        raise CorruptImage(str(error)) from None
    if max(image.size) > size:
        scale = size / max(image.size)
        wanted = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(wanted, Image.Resampling.LANCZOS)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    image.save(part, "PNG")
    part.replace(target)
