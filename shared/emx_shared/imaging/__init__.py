"""Bytes to pixels: what is accepted, what is refused and why."""

from emx_shared.imaging.decoding import MEDIA_TYPES, DecodedImage, decode, media_type
from emx_shared.imaging.png_file import as_png
from emx_shared.imaging.refusals import BadImage, ImageTooLarge, NotAnImage

__all__ = [
    "MEDIA_TYPES",
    "BadImage",
    "DecodedImage",
    "ImageTooLarge",
    "NotAnImage",
    "as_png",
    "decode",
    "media_type",
]
