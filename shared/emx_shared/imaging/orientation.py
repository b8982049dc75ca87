"""How stored pixels are turned for display: the eight ways of EXIF's tag Orientation (CIPA DC-008, 4.6.5)."""

from typing import Final

from PIL import Image

UPRIGHT: Final = 1
"""The orientation that leaves an image as it is stored."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = (5, 6, 7, 8)
_MIRRORED = (2, 4, 5, 7)


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image as it is stored to the way in which it is shown."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def is_on_its_side(orientation: int) -> bool:
    """Return whether stored rows are shown as columns."""
    return orientation in _ON_ITS_SIDE


def name_of(orientation: int) -> str:
    """Return in words how an image is stored, such as ``mirrored``."""
    turned = "on its side" if orientation in _ON_ITS_SIDE else "upside down" if orientation in (3, 4) else ""
    mirrored = "mirrored" if orientation in _MIRRORED else ""
    return " and ".join(filter(None, (mirrored, turned))) or "upright"
