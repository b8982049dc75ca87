"""The directories of a TIFF or of EXIF data (TIFF 6.0, section 2), walked before Pillow reads them."""

from struct import error as CutShort
from struct import unpack_from

from emx_shared.imaging.refusals import BadImage

MAX_TAGS = 2000
"""Of the directories that Pillow reads. Scientific and medical files have a few hundred."""
MAX_VALUES = 2**18
"""Of one tag, of which Pillow makes numbers: the largest are the colour map and the strips' places."""
_MAX_STRIPS = 100_000
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Of a value of each type; 16 to 18 are BigTIFF's."""
_TEXTS = (1, 2, 6, 7)
"""Types that stay bytes."""
_STRIPS = (273, 279, 324, 325)
"""StripOffsets, StripByteCounts, TileOffsets and TileByteCounts."""
_DIRECTORIES = (34665, 34853, 40965)
"""Tags of EXIF's, GPS' and Interoperability's directories, which Pillow follows."""


def check(data: bytes, what: str = "TIFF") -> None:
    """Refuse directories that cost more than their bytes: too many tags, or tags that share their values.

    Args:
        data: of a TIFF file, or EXIF data from their TIFF header on.
        what: has them, for the refusal.

    Raises:
        BadImage: if they do.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    try:
        places = [unpack_from(f"{order}Q", data, 8)[0] if big else unpack_from(f"{order}I", data, 4)[0]]
    except CutShort:
        return
    tags = size = 0
    for place in places:
        for tag, kind, count, value in _tags(data, place, order, big):
            tags, length = tags + 1, count * _BYTES.get(kind, 1)
            size += length if length > (8 if big else 4) else 0
            most = _MAX_STRIPS if tag in _STRIPS else MAX_VALUES
            if tags > MAX_TAGS or size > len(data) or (count > most and kind not in _TEXTS):
                raise BadImage(f"The {what} has more tags or values than any radiograph needs.")
            if tag in _DIRECTORIES and value not in places:
                places.append(value)


def _tags(data: bytes, place: int, order: str, big: bool) -> list[tuple[int, int, int, int]]:
    """Return tag, type, count and value of each entry, up to where the data end, and one too many."""
    head, entry = (f"{order}Q", f"{order}HHQQ") if big else (f"{order}H", f"{order}HHII")
    step, found = (20 if big else 12), list[tuple[int, int, int, int]]()
    try:
        entries, place = unpack_from(head, data, place)[0], place + (8 if big else 2)
        for number in range(min(entries, MAX_TAGS + 1)):
            found.append(unpack_from(entry, data, place + step * number))
    except (CutShort, OverflowError):  # Pillow says what is wrong
        pass
    return found
