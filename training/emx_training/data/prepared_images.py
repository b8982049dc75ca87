"""Images in the form that training reads: upright, 8 bits, no larger than the model can use."""

import os
from pathlib import Path

from PIL import Image, PngImagePlugin

from emx_shared.contracts.report import ImageFacts
from emx_shared.imaging import BadImage, decode

_FACTS = "emx-original"
"""Keyword of the text in a prepared image that keeps the facts of its original, so that none is decoded twice."""


class CorruptImage(ValueError):
    """An image can't be used. The message says why."""


def prepare(source: Path, target: Path, size: int) -> ImageFacts:
    """Decode an image, scale it down and write it as a grey PNG.

    More than 8 bits are stretched from the image's own minimum to its maximum, as the worker does at inference.
    The file appears whole or not at all.

    Args:
        source: PNG, JPEG, TIFF or DICOM.
        target: the PNG; its folder is created if necessary.
        size: longest side of the result, in pixels. A smaller image keeps its size.

    Returns:
        What is known of the original; its size is that of the upright image, which boxes refer to.

    Raises:
        CorruptImage: if the source is missing or can't be decoded.
    """
    try:
        decoded = decode(source.read_bytes(), max_bytes=512 * 2**20)
    except FileNotFoundError:
        raise CorruptImage("there is no such file") from None
    except (BadImage, OSError) as error:
        raise CorruptImage(str(error)) from None
    image = decoded.image
    if max(image.size) > size:
        scale = size / max(image.size)
        wanted = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(wanted, Image.Resampling.LANCZOS)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    kept = PngImagePlugin.PngInfo()
    kept.add_text(_FACTS, decoded.facts.model_dump_json())
    image.save(part, "PNG", pnginfo=kept)
    part.replace(target)
    return decoded.facts


def facts_of_prepared(target: Path) -> ImageFacts | None:
    """Return the facts of a prepared image's original; None if it isn't prepared yet, or keeps none."""
    try:
        with Image.open(target) as image:
            return ImageFacts.model_validate_json(image.info[_FACTS])
    except (OSError, KeyError, ValueError, SyntaxError):
        return None
