"""Colour and transparency of 16 bits, of which Pillow keeps the upper 8: a radiograph of 12 bits would be black.

Pillow is made to read a file twice, once for the upper and once for the lower bytes: the byte order of the samples
is part of the raw mode that it unpacks them with.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

from emx_shared.imaging.raster.grayscale import Greys, Values, stretched
from emx_shared.imaging.refusals import BadImage

OpenFile = Callable[[], ImageFile.ImageFile]
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R BT.601, as Pillow's own conversion to grey."""
_BITS_PER_SAMPLE, _PLANES, _EXTRA_SAMPLES = 258, 284, 338
_ALPHA_PREMULTIPLIED, _ALPHA = 1, 2
_OTHER_ORDER = {"L": "B", "B": "L"}


@dataclass(frozen=True)
class _Layout:
    """How samples of 16 bits are arranged.

    Attributes:
        grey: one sample and alpha, instead of three and perhaps alpha.
        order: of a sample's bytes as the decoder gets them, ``L`` (little-endian) or ``B``.
        alpha: what the last sample does: 0 nothing, 1 the others are multiplied by it, 2 they are to be.
    """

    grey: bool
    order: str
    alpha: int


def complete_pillow() -> None:
    """Teach Pillow TIFFs of grey and alpha of 16 bits, as four bytes: it has no mode for them."""
    for order in (TiffImagePlugin.II, TiffImagePlugin.MM):
        for extra in ((), (0,), (_ALPHA_PREMULTIPLIED,), (_ALPHA,)):
            TiffImagePlugin.OPEN_INFO.setdefault((order, 1, (1,), 1, (16, 16), extra), ("RGBA", "RGBA"))


complete_pillow()


def read_deep_colour(opened: ImageFile.ImageFile, open_again: OpenFile, deep: bool = False) -> Greys | None:
    """Read a file's picture in grey, stretched over its own range, transparency in black.

    Args:
        opened: the file.
        open_again: opens it anew.
        deep: whether the picture has 16 bits instead of 8.

    Returns:
        The picture; None if the file isn't in colour or transparent with 16 bits.
    """
    layout = _layout(opened)
    if layout is None:
        return None
    return _grey(opened, layout, deep) if layout.grey else _colour(opened, open_again(), layout, deep)


def _layout(opened: ImageFile.ImageFile) -> _Layout | None:
    if not opened.tile:
        return None
    if isinstance(opened, PngImagePlugin.PngImageFile):
        raw = str(opened.tile[0].args)
        return _Layout(raw == "LA;16B", "B", _ALPHA) if raw in ("LA;16B", "RGB;16B", "RGBA;16B") else None
    if not isinstance(opened, TiffImagePlugin.TiffImageFile) or opened.mode not in ("RGB", "RGBA"):
        return None
    bits = opened.tag_v2.get(_BITS_PER_SAMPLE, (1,))
    libtiff, planes = opened.tile[0].codec_name == "libtiff", opened.tag_v2.get(_PLANES, 1)
    if len(bits) < 2 or set(bits) != {16} or (libtiff and planes != 1):
        return None
    grey = len(bits) == 2
    if grey and planes != 1:
        raise BadImage(
            "The TIFF keeps grey and alpha of 16 bits apart, which can't be read here. Save it without alpha."
        )
    order = sys.byteorder == "little" if libtiff else opened.tag_v2.prefix == TiffImagePlugin.II
    extra = (*opened.tag_v2.get(_EXTRA_SAMPLES, ()), 0 if grey else _ALPHA)[0]
    return _Layout(grey, "L" if order else "B", extra)


def _colour(upper: ImageFile.ImageFile, lower: ImageFile.ImageFile, layout: _Layout, deep: bool) -> Greys:
    for opened, order in ((upper, layout.order), (lower, _OTHER_ORDER[layout.order])):
        _unpack_with(opened, f"{{}};16{order}")
        opened.load()

    def read(top: int, bottom: int) -> tuple[Values, npt.NDArray[np.bool_] | None]:
        whole = _rows(upper, top, bottom) * 256 + _rows(lower, top, bottom)
        return _seen(whole[..., :3] @ _LUMA, whole[..., 3] if upper.mode == "RGBA" else None, layout.alpha)

    return stretched(upper.size, read, deep)


def _grey(opened: ImageFile.ImageFile, layout: _Layout, deep: bool) -> Greys:
    _unpack_with(opened, "RGBA")
    opened.load()
    upper, lower = (1, 0) if layout.order == "L" else (0, 1)

    def read(top: int, bottom: int) -> tuple[Values, npt.NDArray[np.bool_] | None]:
        stored = _rows(opened, top, bottom)
        grey, alpha = (stored[..., at + upper] * 256 + stored[..., at + lower] for at in (0, 2))
        return _seen(grey, alpha, layout.alpha)

    return stretched(opened.size, read, deep)


def _unpack_with(opened: ImageFile.ImageFile, raw_mode: str) -> None:
    """Change the raw mode of each tile, of which ``{}`` stands for the samples' names, such as ``RGB``."""
    tiles = []
    for tile in opened.tile:
        raw, *others = (tile.args,) if isinstance(tile.args, str) else tile.args or ("",)
        changed = raw_mode.format(str(raw).partition(";")[0].upper())
        tiles.append(tile._replace(args=(changed, *others) if others else changed))
    opened.tile = tiles


def _rows(image: Image.Image, top: int, bottom: int) -> Values:
    return np.asarray(image.crop((0, top, image.width, bottom))).astype(np.float32)


def _seen(values: Values, alpha: Values | None, kind: int) -> tuple[Values, npt.NDArray[np.bool_] | None]:
    if alpha is None or not kind:
        return values, None
    return (values * (alpha / 65535) if kind == _ALPHA else values), alpha > 0
