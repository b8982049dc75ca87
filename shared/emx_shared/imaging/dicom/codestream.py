"""What compressed pixels say of themselves, read before a decoder sets memory aside for them."""

from dataclasses import dataclass
from struct import unpack_from

from emx_shared.imaging.dicom import jpeg2000
from emx_shared.imaging.jpeg_segments import JPEG_LS_FRAME, START_OF_FRAME, segments
from emx_shared.imaging.refusals import BadImage

_FRAMES = {0xC0, 0xC1, 0xC3, JPEG_LS_FRAME}
"""Baseline, extended, lossless and JPEG-LS. No accepted transfer syntax has progressive, hierarchical or
arithmetic coding."""
_JPEG_XT = 0xEB
"""APP11, where JPEG XT (ISO/IEC 18477) hides further codestreams."""
_JP2_SIGNATURE = b"\0\0\0\x0cjP  "


@dataclass(frozen=True)
class Codestream:
    """A compressed image.

    Attributes:
        data: without a file format around it.
        kind: ``JPEG 2000``, ``JPEG-LS`` or ``JPEG``.
        size: columns, rows and components.
        bits: of a sample.
    """

    data: bytes
    kind: str
    size: tuple[int, int, int]
    bits: int


def find_codestream(frame: bytes) -> Codestream:
    """Return the JPEG (ITU-T T.81 B.2.2), JPEG-LS (T.87) or JPEG 2000 (T.800 A.5.1) codestream of a frame.

    Some writers keep the file format JP2 around it, against DICOM PS3.5 A.4.4. Raises BadImage, or struct.error or
    IndexError where the frame is cut short.
    """
    if frame.startswith(_JP2_SIGNATURE):
        frame = _unwrapped(frame)
    if frame.startswith(jpeg2000.START):
        right, bottom, left, top = unpack_from(">4I", frame, 8)
        size = right - left, bottom - top, unpack_from(">H", frame, 40)[0]
        return Codestream(frame, "JPEG 2000", size, (frame[42] & 0x7F) + 1)
    if not frame.startswith(b"\xff\xd8\xff"):
        raise BadImage("The compressed pixels are not those of an accepted kind.")
    for segment in segments(frame):
        if segment.marker in _FRAMES:
            bits, rows, columns, components = unpack_from(">BHHB", frame, segment.start)
            kind = "JPEG-LS" if segment.marker == JPEG_LS_FRAME else "JPEG"
            return Codestream(frame, kind, (columns, rows, components), bits)
        if segment.marker in START_OF_FRAME or segment.marker == _JPEG_XT:
            break
    raise BadImage("The compressed pixels are damaged, or coded in a way that DICOM doesn't allow.")


def _unwrapped(file: bytes) -> bytes:
    """Return what the box jp2c of a JP2 file has (T.800 I.5.4)."""
    at = 0
    for _ in range(100):
        length, kind = unpack_from(">I4s", file, at)
        header = 8
        if length == 1:
            length, header = unpack_from(">Q", file, at + 8)[0], 16
        if kind == b"jp2c":
            return file[at + header : at + length if length else None]
        if length < header:
            break
        at += length
    raise BadImage("The compressed pixels are a JP2 file without a codestream.")
