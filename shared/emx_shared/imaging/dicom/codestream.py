"""What a compressed frame says of itself, read before a decoder sets memory aside for it."""

from struct import unpack_from

from emx_shared.imaging.dicom import jpeg2000
from emx_shared.imaging.refusals import BadImage

_FRAMES = {0xC0: "baseline", 0xC1: "extended", 0xC3: "lossless", 0xF7: "JPEG-LS"}
_OTHER_FRAMES = {*range(0xC0, 0xD0), 0xDE} - {0xC4, 0xC8, 0xCC} - _FRAMES.keys()
"""Progressive, hierarchical and arithmetic coding, which no accepted transfer syntax has."""
_JPEG_XT = 0xEB
"""APP11, where JPEG XT (ISO/IEC 18477) hides further codestreams."""


def declared_size(frame: bytes) -> tuple[int, int, int]:
    """Return the columns, rows and components that a compressed frame declares.

    Of a JPEG (ITU-T T.81 B.2.2), JPEG-LS (T.87) or JPEG 2000 (T.800 A.5.1) codestream without a file format
    around it, as DICOM PS3.5 A.4 demands. Raises BadImage, or struct.error or IndexError where it is cut short.
    """
    if frame.startswith(jpeg2000.START):
        right, bottom, left, top = unpack_from(">4I", frame, 8)
        return right - left, bottom - top, unpack_from(">H", frame, 40)[0]
    if not frame.startswith(b"\xff\xd8\xff"):
        raise BadImage("The compressed pixels are not those of an accepted kind.")
    at = 2
    while frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif marker in _FRAMES:
            rows, columns, components = unpack_from(">HHB", frame, at + 5)
            return columns, rows, components
        elif marker in _OTHER_FRAMES or marker == _JPEG_XT:
            break
        else:
            at += 2 + unpack_from(">H", frame, at + 2)[0]
    raise BadImage("The compressed pixels are damaged, or coded in a way that DICOM doesn't allow.")
