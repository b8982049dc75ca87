"""PNG, JPEG and TIFF, by Pillow."""

import io
import struct
import warnings
from dataclasses import dataclass
from functools import partial

from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from emx_shared.imaging.orientation import UPRIGHT, turn
from emx_shared.imaging.raster import jpeg_header, png_chunks, tiff_directories
from emx_shared.imaging.raster.deep_colour import read_deep_colour
from emx_shared.imaging.raster.grayscale import DEEP_MODES, Greys, grayscale
from emx_shared.imaging.refusals import BadImage, ImageTooLarge, check_size
from emx_shared.imaging.value_range import LONE_VALUES_WARNING
from emx_shared.imaging.windowing import Windowing

Image.MAX_IMAGE_PIXELS = None  # the limit here is ours, and is checked before any pixel is decoded
warnings.filterwarnings("ignore", module=r"PIL\.")

_FILES: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,  # not Image.open, which also looks for further pictures (MPO)
    "PNG": PngImagePlugin.PngImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
_TIFF_COMPRESSIONS = {
    "raw", "tiff_ccitt", "group3", "group4", "tiff_lzw", "tiff_jpeg", "jpeg", "tiff_adobe_deflate", "tiff_deflate",
    "packbits",
}  # fmt: skip
_TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT, _TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 262, 339, 322, 323
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _UNSIGNED = 0, 1, 1
_RAW_EXIF = "Raw profile type exif"
"""Text of a PNG by ImageMagick, with EXIF data in hexadecimal digits."""


@dataclass(frozen=True)
class Picture:
    """A picture of a PNG, JPEG or TIFF.

    Attributes:
        image: mode L, or I;16 where it has windows; upright.
        orientation: how the stored pixels were turned for that (EXIF's number).
        warnings: what was read otherwise than the file says.
        windowing: how the picture is shown, if it has 16 bits.
    """

    image: Image.Image
    orientation: int
    warnings: tuple[str, ...] = ()
    windowing: Windowing | None = None


def _complete_pillow() -> None:
    """Teach Pillow 32 unsigned bits in big-endian order, and most deep white-is-zero layouts."""
    known = TiffImagePlugin.OPEN_INFO
    known[TiffImagePlugin.MM, _BLACK_IS_ZERO, (_UNSIGNED,), 1, (32,), ()] = ("I", "I;32BS")
    for (order, photometric, *layout), modes in list(known.items()):
        if photometric == _BLACK_IS_ZERO and modes[0] in DEEP_MODES:
            known.setdefault((order, _WHITE_IS_ZERO, *layout), modes)  # type: ignore[arg-type]


_complete_pillow()


def read(data: bytes, kind: str, max_pixels: int, deep: bool = False) -> Picture:
    """Read a PNG, JPEG or TIFF (``kind``), with ``deep`` in 16 bits if it has more than 8. Raises BadImage."""
    try:
        complete, frame = _check_header(data, kind)
    except (struct.error, IndexError, OverflowError):
        raise BadImage(f"The {kind}'s header is damaged.") from None
    open_again = partial(_open, data, kind, frame)
    try:
        opened = open_again()
    except MemoryError:
        raise
    except Exception:
        pixels = tiff_directories.pixels_of(data) if kind == "TIFF" else ""
        fault = f"pixels are of a sort that can't be read here ({pixels})" if pixels else "header is damaged"
        raise BadImage(_broken(kind, complete, fault)) from None
    check_size(*opened.size, max_pixels)
    try:
        if kind == "TIFF":
            orientation, unreadable = _orientation(opened)  # Pillow turns a TIFF by itself, and forgets how
            greys = _tiff(opened, open_again, max_pixels, deep)
            image = greys.image
        else:
            greys = _pixels(opened, open_again, deep)
            orientation, unreadable = _orientation(opened)  # of a PNG, that may come after the pixels
            image = turn(greys.image, orientation)
    except (BadImage, MemoryError):
        raise
    except Exception:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, …
        raise BadImage(_broken(kind, complete, "pixels are damaged")) from None
    lone = [LONE_VALUES_WARNING] if greys.lone else []
    return Picture(image, orientation, (*unreadable, *lone), greys.windowing)


def _check_header(data: bytes, kind: str) -> tuple[bool, int]:
    """Refuse a header that costs much.

    Returns:
        Whether the file is complete as far as that can be told, and the number of the frame with the picture.
    """
    if kind == "PNG":
        return png_chunks.is_complete(data), 0
    if kind == "JPEG":
        jpeg_header.check(data)
        return jpeg_header.is_complete(data), 0
    pages = tiff_directories.check(data)
    if len(pages) > 1:
        raise BadImage("The TIFF has several pages; one image is read.")
    return tiff_directories.is_complete(data), pages[0] if pages else 0


def _broken(kind: str, complete: bool, fault: str) -> str:
    return f"The {kind}'s {fault}." if complete else f"The {kind} is cut short: its end is missing. Send it again."


def _open(data: bytes, kind: str, frame: int) -> ImageFile.ImageFile:
    opened = _FILES[kind](io.BytesIO(data))
    if frame:
        opened.seek(frame)
    return opened


def _orientation(opened: ImageFile.ImageFile) -> tuple[int, tuple[str, ...]]:
    """Return the orientation that EXIF or XMP data say, and a warning if they can't be read."""
    try:
        if exif := opened.info.get("exif"):
            tiff_directories.check(exif.removeprefix(b"Exif\0\0"), "EXIF data")
        elif text := opened.info.get(_RAW_EXIF):
            hexadecimal = "".join(text.split("\n")[3:])
            tiff_directories.check(bytes.fromhex(hexadecimal).removeprefix(b"Exif\0\0"), "EXIF data")
        found = opened.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except (BadImage, MemoryError):
        raise
    except Exception:  # as above
        return UPRIGHT, ("The image's EXIF data can't be read: the picture is shown as it is stored.",)
    return (found if found in range(1, 9) else UPRIGHT), ()


def _pixels(opened: ImageFile.ImageFile, open_again: "partial[ImageFile.ImageFile]", deep: bool) -> Greys:
    colour = read_deep_colour(opened, open_again, deep)
    if colour is not None:
        return colour
    opened.load()
    return grayscale(opened, deep=deep)


def _tiff(
    opened: ImageFile.ImageFile, open_again: "partial[ImageFile.ImageFile]", max_pixels: int, deep: bool
) -> Greys:
    """Read TIFF 6.0. Pillow turns it upright by itself, and inverts white-is-zero for up to 8 bits only."""
    assert isinstance(opened, TiffImagePlugin.TiffImageFile)
    tags = opened.tag_v2
    if (compression := opened.info.get("compression")) not in _TIFF_COMPRESSIONS:
        raise BadImage(
            f"The TIFF is compressed in a way that isn't accepted ({compression}). Save it with LZW or Deflate."
        )
    if tags.get(_TIFF_TILE_WIDTH, 0) * tags.get(_TIFF_TILE_LENGTH, 0) > max_pixels:
        raise ImageTooLarge(f"The TIFF's tiles have more pixels than the {max_pixels} that are accepted.")
    _check_strips(opened)
    white_is_zero = tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO
    unsigned = tags.get(_TIFF_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED
    colour = read_deep_colour(opened, open_again, deep)
    if colour is not None:
        return colour
    opened.load()
    gray = grayscale(opened, unsigned=unsigned and opened.mode == "I", deep=deep)
    return gray.inverted() if white_is_zero and opened.mode in DEEP_MODES else gray


def _check_strips(opened: TiffImagePlugin.TiffImageFile) -> None:
    """Refuse strips or tiles that cover the image again and again."""
    places = [tile.extents for tile in opened.tile if tile.extents]
    covered = sum((right - left) * (bottom - top) for left, top, right, bottom in places)
    if covered > 2 * opened.width * opened.height * len(opened.getbands()):
        raise BadImage("The TIFF has more strips than its pixels need.")
