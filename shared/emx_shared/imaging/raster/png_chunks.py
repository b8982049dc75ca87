"""The chunks of a PNG (ISO/IEC 15948, 5.3), walked before Pillow does."""

from struct import unpack_from

from emx_shared.imaging.refusals import BadImage

MAX_CHUNKS = 100_000
"""Encoders write the pixels in chunks of 8 KiB or more."""
_MAX_PROFILES = 10
"""Pillow unpacks each; a PNG may have one."""


def is_complete(data: bytes) -> bool:
    """Return whether a PNG has its end. Raises BadImage if there are more chunks than any radiograph needs."""
    at, chunks, profiles = 8, 0, 0
    while at + 8 <= len(data):
        length, kind = unpack_from(">I4s", data, at)
        at += 12 + length
        chunks += 1
        profiles += kind == b"iCCP"
        if chunks > MAX_CHUNKS or profiles > _MAX_PROFILES:
            raise BadImage("The PNG has more chunks than any radiograph needs.")
        if kind == b"IEND":
            return True
    return False
