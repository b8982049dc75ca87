"""A decoded image as PNG (ISO/IEC 15948), with text chunks that say how it is shown and how large a pixel is."""

import io

from PIL.PngImagePlugin import PngInfo

from emx_shared.imaging.decoding import DecodedImage
from emx_shared.imaging.windowing import Window

_QUICK = 1
"""zlib's level: of radiographs, higher ones save little and take many times as long."""


def as_png(decoded: DecodedImage) -> bytes:
    """Return a decoded image as PNG, for viewers without DICOM or TIFF.

    Text chunks say what a viewer needs, each where it is known: ``PixelSpacing`` in millimetres between rows,
    then columns, and ``PixelSpacingFrom``, the element that it is from. With 16 bits, ``Window`` is the window of
    samples (``center width``) that gives the picture of 8 bits, and ``Windows`` has further ones
    (``name=center width; …``). No other text of the file is in it.
    """
    texts = PngInfo()
    if decoded.windowing:
        texts.add_text("Window", _text(decoded.windowing.shown))
        if further := decoded.windowing.further:
            texts.add_text("Windows", "; ".join(f"{name}={_text(window)}" for name, window in further))
    if (spacing := decoded.facts.pixel_spacing) and decoded.spacing_from:
        texts.add_text("PixelSpacing", " ".join(map(_number, spacing)))
        texts.add_text("PixelSpacingFrom", decoded.spacing_from)
    stream = io.BytesIO()
    decoded.image.save(stream, "PNG", compress_level=_QUICK, pnginfo=texts)
    return stream.getvalue()


def _text(window: Window) -> str:
    return f"{_number(window.center)} {_number(window.width)}"


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")
