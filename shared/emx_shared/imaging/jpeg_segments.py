"""The marker segments of a JPEG (ITU-T T.81 B.1), walked before any decoder does."""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import unpack_from

from emx_shared.imaging.refusals import BadImage

START_OF_FRAME = {*range(0xC0, 0xD0), 0xDE} - {0xC4, 0xC8, 0xCC}
JPEG_LS_FRAME = 0xF7
START_OF_SCAN, QUANTISATION, APP1, APP13 = 0xDA, 0xDB, 0xE1, 0xED
_END, _STUFFED, _FILL = 0xD9, 0x00, 0xFF
_ALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a segment."""
MAX_SEGMENTS = 10_000
"""Before the first scan. Large colour profiles and XMP take hundreds."""
_MAX_BETWEEN = 2**16
"""Bytes between segments, such as fill bytes."""


@dataclass(frozen=True)
class Segment:
    """A marker segment: its marker's second byte, and where the bytes after its length begin and end."""

    marker: int
    start: int
    end: int


def segments(data: bytes) -> Iterator[Segment]:
    """Yield the segments up to the first start of scan, it included, of data that begin with an SOI.

    As decoders do, passes over fill bytes and whatever else is between segments. Ends early where the data do.

    Raises:
        BadImage: if there is more than any radiograph needs.
    """
    at, between, count = 2, 0, 0
    while (found := data.find(b"\xff", at)) >= 0 and found + 1 < len(data):
        between += found - at
        marker, at = data[found + 1], found + 2
        if marker in (_FILL, _STUFFED):
            between, at = between + 1, found + (1 if marker == _FILL else 2)
        elif marker == _END or (marker not in _ALONE and found + 4 > len(data)):
            return
        else:
            count += 1
            if marker not in _ALONE:
                at = found + 2 + max(unpack_from(">H", data, found + 2)[0], 2)
                yield Segment(marker, found + 4, at)
            if marker == START_OF_SCAN:
                return
        if count > MAX_SEGMENTS or between > _MAX_BETWEEN:
            raise BadImage("The JPEG has more segments or fill bytes in its header than any radiograph needs.")
