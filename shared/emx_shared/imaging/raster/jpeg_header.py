"""What a JPEG has before its pixels, checked before Pillow reads it."""

from emx_shared.imaging.jpeg_segments import APP1, APP13, QUANTISATION, START_OF_FRAME, Segment, segments
from emx_shared.imaging.raster import tiff_directories
from emx_shared.imaging.refusals import BadImage

_MAX_SCANS = 100
"""Of a progressive JPEG, which has about ten. Each costs a pass over all pixels, and can be a few bytes short."""
_MAX_EXIF_SEGMENTS = 20
"""64 KiB each, one as a rule, and Pillow's time grows with their square."""
_MAX_TABLES = 2**16
"""Bytes of quantisation tables, which Pillow sorts one by one; four of them take 520."""
_MAX_FRAME = 32
"""Bytes of a start of frame: six, and three for each of up to four components."""
_MAX_PHOTOSHOP = 10_000
"""Resources of Photoshop."""
_EXIF = b"Exif\0\0"
_UNREADABLE = {0xC3: "lossless", **dict.fromkeys(range(0xC5, 0xC8), "hierarchical"),
               **dict.fromkeys((*range(0xC9, 0xCC), *range(0xCD, 0xD0)), "arithmetically coded")}  # fmt: skip


def check(data: bytes) -> None:
    """Refuse a JPEG that would cost much to open. Raises BadImage."""
    if data.count(b"\xff\xda") > _MAX_SCANS:
        raise BadImage(f"The JPEG has more than {_MAX_SCANS} scans.")
    frames, tables, exif, resources = [], 0, list[bytes](), 0
    for segment in segments(data):
        if segment.marker in START_OF_FRAME:
            frames.append(segment)
        elif segment.marker == QUANTISATION:
            tables += segment.end - segment.start
        elif segment.marker == APP13:
            resources += data.count(b"8BIM", segment.start, segment.end)
        elif segment.marker == APP1 and data.startswith(_EXIF, segment.start):
            exif.append(data[segment.start + len(_EXIF) : segment.end])
            if len(exif) > _MAX_EXIF_SEGMENTS:
                raise BadImage(f"The JPEG has more than {_MAX_EXIF_SEGMENTS} EXIF segments.")
    if tables > _MAX_TABLES or resources > _MAX_PHOTOSHOP:
        raise BadImage("The JPEG has more tables in its header than any radiograph needs.")
    _check_frames(data, frames)
    if exif:
        tiff_directories.check(b"".join(exif), "JPEG's EXIF data")


def _check_frames(data: bytes, frames: list[Segment]) -> None:
    if len(frames) > 1 or any(frame.end - frame.start > _MAX_FRAME for frame in frames):
        raise BadImage("The JPEG has several frames; one image is read.")
    for frame in frames:
        if frame.marker in _UNREADABLE:
            raise BadImage(f"The JPEG is {_UNREADABLE[frame.marker]}, which can't be read here. Save it as a PNG.")
        if bits := data[frame.start : frame.start + 1].strip(b"\x08"):
            raise BadImage(f"The JPEG has {bits[0]} bits; 8 can be read here. Save it as a PNG.")


def is_complete(data: bytes) -> bool:
    """Return whether a JPEG has its end somewhere; what follows it is passed over."""
    return data.rfind(b"\xff\xd9") >= 0
