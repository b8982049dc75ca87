"""The samples of the pixels as the file has them: words of 8 or 16 bits, of which some are the stored value."""

from collections.abc import Callable
from dataclasses import dataclass
from struct import error as CutShort
from typing import Any

import libjpeg.utils
import numpy as np
import numpy.typing as npt
import openjpeg.utils

from emx_shared.imaging.dicom import jpeg2000, rle
from emx_shared.imaging.dicom.codestream import find_codestream
from emx_shared.imaging.dicom.elements import Element
from emx_shared.imaging.dicom.header import Header
from emx_shared.imaging.refusals import BadImage

_MAX_BITS = 16


@dataclass(frozen=True)
class Samples:
    """What a file has for each pixel.

    Attributes:
        words: of shape (rows, columns), of 8 or 16 bits, unsigned.
        bits: that a word can have; a codestream may have fewer than its words.
    """

    words: npt.NDArray[np.unsignedinteger[Any]]
    bits: int


def read_samples(header: Header, data: bytes) -> Samples:
    """Read the samples from the bytes of a header's data set, however they are compressed. Raises BadImage."""
    rows, columns = header.required("Rows"), header.required("Columns")
    if header.pixels.length is None:
        return _compressed(_frame(header, data), rows, columns)
    return _native(header, data, header.pixels, rows, columns)


def _native(header: Header, data: bytes, pixels: Element, rows: int, columns: int) -> Samples:
    width = _bits_allocated(header) // 8
    needed = rows * columns * width
    there = min(pixels.length or 0, len(data) - pixels.value)
    if not there:
        raise BadImage("The DICOM file has no pixels: its PixelData are empty.")
    if there < needed:
        raise BadImage(f"The DICOM file's pixels are cut short: {there} of {needed} bytes are there.")
    order = "<" if header.finder.little else ">"
    words = np.frombuffer(data, f"{order}u{width}", rows * columns, pixels.value)
    if width == 1 and order == ">" and data[pixels.start + 4 : pixels.start + 6] == b"OW":
        # Two pixels to a word, the first in its low byte (PS3.5, 8.1.1)
        padded = data[pixels.value : pixels.value + needed + needed % 2]
        words = np.frombuffer(padded, ">u2").astype("<u2").view("u1")[:needed]
    return Samples(words.reshape(rows, columns).astype(f"u{width}", copy=False), 8 * width)


def _bits_allocated(header: Header) -> int:
    bits = header.whole("BitsAllocated") or (16 if (header.whole("BitsStored") or 16) > 8 else 8)
    if bits not in (8, 16):
        raise BadImage("The DICOM file's pixels are not of 8 or 16 bits.")
    return bits


def _frame(header: Header, data: bytes) -> bytes:
    """Join the fragments of the one frame; the first item is the table of offsets (PS3.5, A.4)."""
    fragments = list(header.finder.items(header.pixels.value))[1:]
    if fragments and fragments[-1][1] > len(data):
        raise BadImage("The DICOM file is cut short within its pixels. Send it again.")
    frame = b"".join(data[start:end] for start, end in fragments)
    if not frame:
        raise BadImage("The DICOM file has no pixels: its PixelData are empty.")
    return frame


def _compressed(frame: bytes, rows: int, columns: int) -> Samples:
    """Decompress a frame, which says itself in which of the accepted ways it is coded."""
    if _is_rle(frame):
        words: npt.NDArray[np.unsignedinteger[Any]] = _decoded("RLE", lambda: rle.unpack(frame, rows, columns))
        return Samples(words, 8 * words.itemsize)
    try:
        codestream = find_codestream(frame)
    except (IndexError, CutShort):
        raise BadImage("The compressed pixels are cut short within their header.") from None
    if codestream.size[2] != 1:
        raise BadImage("The compressed pixels are in colour; radiographs are MONOCHROME1 or MONOCHROME2.")
    if codestream.size != (columns, rows, 1):
        raise BadImage("The compressed pixels are not of the size that the DICOM file says.")
    if codestream.bits > _MAX_BITS:
        raise BadImage("The compressed pixels are not of 8 or 16 bits.")
    if codestream.kind == "JPEG 2000":
        jpeg2000.check_cost(codestream.data)
        decoded = _decoded(codestream.kind, lambda: openjpeg.utils.decode(codestream.data, 0))
    else:
        decoded = _decoded(codestream.kind, lambda: libjpeg.utils.decode(codestream.data))
    if decoded.shape != (rows, columns) or decoded.itemsize > 2:
        raise BadImage(f"The {codestream.kind} pixels are not those that their header announces.")
    return Samples(decoded.view(f"u{decoded.itemsize}"), codestream.bits)


def _decoded(kind: str, decode: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    try:
        return decode()
    except (BadImage, MemoryError):
        raise
    except Exception:  # the decoders raise whatever comes
        raise BadImage(f"The {kind} pixels are damaged or cut short.") from None


def _is_rle(frame: bytes) -> bool:
    """Return whether a frame begins with the header of RLE Lossless: a small count, and that header's length."""
    return frame[1:4] == bytes(3) and frame[4:8] == b"\x40\0\0\0"
