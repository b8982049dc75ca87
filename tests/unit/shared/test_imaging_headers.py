"""Headers that a library would walk for a minute, or in gigabytes, are refused before it sees them."""

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emx_shared.imaging import BadImage, decode
from support.dicom import radiograph, ramp, written
from support.files import file
from support.memory import PRINT_PEAK

PIXELS = Image.fromarray(np.arange(60 * 80, dtype=np.int64).reshape(60, 80).astype(np.uint8))
PLENTY = 30 * 2**20
"""Bytes: half of what is accepted."""


def jpeg(*inserted: bytes) -> bytes:
    whole = file(PIXELS, "JPEG")
    return b"".join((whole[:2], *inserted, whole[2:]))


def png(*inserted: bytes) -> bytes:
    whole = file(PIXELS, "PNG")
    return b"".join((whole[:33], *inserted, whole[33:]))


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def segment(marker: int, data: bytes = b"") -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def directory(*entries: tuple[int, int, int, int], at: int = 8, big: bool = False) -> bytes:
    """A TIFF's directory of tags, types, counts and values, and the header before it."""
    packed = b"".join(struct.pack("<HHQQ" if big else "<HHII", *entry) for entry in entries)
    if big:
        return struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) + struct.pack("<Q", len(entries)) + packed + bytes(8)
    return struct.pack("<2sHIH", b"II", 42, at, len(entries)) + packed + bytes(4)


SIZE = [(256, 3, 1, 80), (257, 3, 1, 60), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]


def strips(count: int) -> bytes:
    """Each covers nearly all of the image, whose place is the same for all."""
    tags = [*SIZE, (273, 4, count, 200), (278, 3, 1, 59), (279, 4, 1, 4800)]
    return directory(*tags).ljust(200, b"\0") + struct.pack("<I", 8) * count + bytes(80 * 60)


def shared_values(tags: int) -> bytes:
    """Tags whose values are all the same bytes."""
    start = 10 + 12 * tags + 4
    return directory(*[(1000 + tag, 1, 400_000, start) for tag in range(tags)]) + bytes(400_000)


def exif_of(data: bytes) -> list[bytes]:
    return [segment(0xE1, b"Exif\0\0" + data[at : at + 65_000]) for at in range(0, len(data), 65_000)]


def sub_directory(tag: int) -> bytes:
    """A TIFF whose own tags are fine, with a directory that isn't."""
    pointer = 10 + 12 * (len(SIZE) + 4) + 4
    tags = [*SIZE, (273, 4, 1, 8), (278, 3, 1, 60), (279, 4, 1, 4800), (tag, 4, 1, pointer)]
    start = pointer + 2 + 12 * 2500
    inner = struct.pack("<H", 2500) + b"".join(struct.pack("<HHII", n, 1, 9000, start) for n in range(2500))
    return directory(*tags) + inner + bytes(10_000)


def many_numbers(tags: int) -> bytes:
    """EXIF tags of as many fractions as one tag may have."""
    pointer, count = 10 + 12 * (len(SIZE) + 4) + 4, 2**18
    own = [*SIZE, (273, 4, 1, 8), (278, 3, 1, 60), (279, 4, 1, 4800), (34_665, 4, 1, pointer)]
    start = pointer + 2 + 12 * tags
    entries = [struct.pack("<HHII", 40_000 + n, 5, count, start + n * count * 8) for n in range(tags)]
    return directory(*own) + struct.pack("<H", tags) + b"".join(entries) + bytes(8 * count * tags)


def elements(count: int) -> bytes:
    """Tiny elements before the pixels of an implicit little-endian file."""
    whole = written(radiograph(ramp(8), 8))
    at = whole.index(struct.pack("<HH", 8, 0x16), 132)
    return whole[:at] + b"".join(struct.pack("<HHI", 9 + 2 * (n >> 16), n & 0xFFFF, 0) for n in range(count))


def within_a_sequence(inner: bytes) -> bytes:
    whole = written(radiograph(ramp(8), 8))
    at = whole.index(b"\x10\x00\x10\x00PN")
    start = b"\x09\x00\x10\x10SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return whole[:at] + start + inner + b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0" + whole[at:]


def table_of(items: bytes) -> bytes:
    """A VOI LUT, which is read, of whatever is wanted."""
    whole = written(radiograph(ramp(8), 8))
    at = whole.index(b"\xe0\x7f\x10\x00")
    return whole[:at] + b"\x28\x00\x10\x30SQ\0\0" + struct.pack("<I", len(items)) + items + whole[at:]


ITEM = b"\xfe\xff\x00\xe0\0\0\0\0"
NESTED = b"\x09\0\x10\x10SQ\0\0\xff\xff\xff\xff" + ITEM[:4] + b"\xff" * 4

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG of fill bytes": (lambda: jpeg(b"\xff" * PLENTY), "fill bytes"),
    "JPEG of stuffed bytes": (lambda: jpeg(b"\xff\x00" * (PLENTY // 2)), "fill bytes"),
    "JPEG of nothing between segments": (lambda: jpeg(segment(0xFE), bytes(PLENTY)), "fill bytes"),
    "JPEG of empty comments": (lambda: jpeg(segment(0xFE) * (PLENTY // 4)), "segments"),
    "JPEG of empty APP5": (lambda: jpeg(segment(0xE5) * (PLENTY // 4)), "segments"),
    "JPEG of restart markers": (lambda: jpeg(b"\xff\xd0" * (PLENTY // 2)), "segments"),
    "JPEG of empty profiles": (lambda: jpeg(segment(0xE2, b"ICC_PROFILE\0\1\1") * 500_000), "segments"),
    "JPEG of frames": (lambda: jpeg(segment(0xC0, b"\x08\0\x3c\0\x50\x01" + bytes(65_000)) * 400), "several"),
    "JPEG of two frames": (lambda: jpeg(segment(0xC0, b"\x08\0\x3c\0\x50\x01\1\x11\0")), "several frames"),
    "JPEG of quantisation tables": (lambda: jpeg(segment(0xDB, (b"\0" + bytes(64)) * 1000) * 400), "tables"),
    "JPEG of Photoshop resources": (
        lambda: jpeg(segment(0xED, b"Photoshop 3.0\0" + b"8BIM\0\0\0\0\0\0\0\0" * 5000) * 400), "tables"
    ),
    "JPEG of EXIF segments": (lambda: jpeg(segment(0xE1, b"Exif\0\0") * 1000), "EXIF segments"),
    "JPEG of EXIF tags that share a value": (lambda: jpeg(*exif_of(shared_values(1500))), "tags or values"),
    "JPEG of EXIF tags": (lambda: jpeg(*exif_of(directory(*[(n, 3, 1, 0) for n in range(60_000)]))), "tags or"),
    "PNG of unknown chunks": (lambda: png(chunk(b"prVt") * (PLENTY // 12)), "chunks"),
    "PNG of empty pixels": (lambda: png(chunk(b"IDAT") * (PLENTY // 12)), "chunks"),
    "PNG of profiles": (lambda: png(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**20))) * 20_000), "chunks"),
    "PNG of EXIF tags that share a value": (lambda: png(chunk(b"eXIf", shared_values(1500))), "tags or values"),
    "PNG of EXIF tags as text": (
        lambda: png(chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  9\n" + shared_values(500).hex().encode())),
        "tags or values",
    ),
    "TIFF of tags": (lambda: directory(*SIZE, *[(1000 + n, 3, 1, 0) for n in range(60_000)]), "tags or values"),
    "BigTIFF of tags": (lambda: directory(*[(n % 65_000, 3, 1, 0) for n in range(10**6)], big=True), "tags or"),
    "TIFF of tags that share a value": (lambda: shared_values(1500), "tags or values"),
    "TIFF of a tag with countless numbers": (
        lambda: directory(*SIZE, (40_000, 5, 4_000_000, 200)).ljust(200, b"\0") + bytes(32_000_000), "tags or"
    ),
    "TIFF of countless strips": (lambda: strips(2_000_000), "tags or values"),
    "TIFF of strips over each other": (lambda: strips(90_000), "more strips"),
    "TIFF of EXIF tags that share a value": (lambda: sub_directory(34_665), "tags or values"),
    "TIFF of EXIF tags with countless numbers": (lambda: many_numbers(28), "tags or values"),
    "TIFF of GPS tags that share a value": (lambda: sub_directory(34_853), "tags or values"),
    "DICOM of elements": (lambda: elements(PLENTY // 8), "more than 100000 elements"),
    "DICOM of elements within an item": (
        lambda: within_a_sequence(struct.pack("<HH2sH", 9, 1, b"SH", 0) * (PLENTY // 8)), "elements"
    ),
    "DICOM of items": (lambda: items_of_a_sequence(), "elements"),
    "DICOM of sequences within sequences": (lambda: within_a_sequence(NESTED * 2000), "within each other"),
    "DICOM of meta elements": (
        lambda: bytes(128) + b"DICM" + struct.pack("<HH2sH", 2, 1, b"SH", 0) * (PLENTY // 8), "elements"
    ),
    "DICOM of a JPEG with fill bytes": (lambda: fragment(jpeg(b"\xff" * PLENTY)), "fill bytes"),
    "DICOM of a JPEG with comments": (lambda: fragment(jpeg(segment(0xFE) * (PLENTY // 4))), "segments"),
    "DICOM of fragments": (lambda: fragment(b"")[:-8] + ITEM * (PLENTY // 8), "elements"),
}  # fmt: skip


def items_of_a_sequence() -> bytes:
    whole = written(radiograph(ramp(8), 8))
    at = whole.index(b"\x10\x00\x10\x00PN")
    items = b"\x09\x00\x10\x10SQ\0\0\xff\xff\xff\xff" + ITEM * (PLENTY // 8) + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return whole[:at] + items + whole[at:]


def fragment(frame: bytes) -> bytes:
    whole = written(radiograph(ramp(8), 8))
    at = whole.index(b"\xe0\x7f\x10\x00")
    items = ITEM + ITEM[:4] + struct.pack("<I", len(frame)) + frame + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return whole[:at] + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + items


@pytest.mark.parametrize("name", REFUSED)
def test_a_header_of_countless_pieces_is_refused(name: str) -> None:
    make, why = REFUSED[name]
    with pytest.raises(BadImage, match=why):
        decode(make())


@pytest.mark.parametrize("name", ["JPEG of empty APP5", "PNG of unknown chunks", "DICOM of elements"])
def test_a_refused_header_takes_no_memory(name: str, tmp_path: Path) -> None:
    (tmp_path / "crafted").write_bytes(REFUSED[name][0]())
    code = (
        "import sys; from pathlib import Path; from emx_shared.imaging import BadImage, decode\n"
        "data = Path(sys.argv[1]).read_bytes()\n"
        "try: decode(data)\n"
        "except BadImage: pass\n" + PRINT_PEAK
    )
    command = [sys.executable, "-c", code, str(tmp_path / "crafted")]
    assert int(subprocess.run(command, capture_output=True, check=True).stdout) < 200


def test_a_table_of_countless_items_is_passed_over() -> None:
    decoded = decode(table_of(ITEM * 100_000))
    assert "VOILUTSequence can't be read" in " ".join(decoded.warnings)


@pytest.mark.parametrize(
    "data",
    [
        jpeg(b"\xff" * 1000, segment(0xFE, b"made here") * 300, segment(0xE2, bytes(60_000)) * 200),
        png(chunk(b"prVt", bytes(100)) * 5000),
        file(PIXELS, "TIFF", tiffinfo={33_000 + number: "made here" for number in range(400)}),
        within_a_sequence(struct.pack("<HH2sH", 9, 1, b"SH", 0) * 20_000),
    ],
    ids=["JPEG", "PNG", "TIFF", "DICOM"],
)  # fmt: skip
def test_generous_headers_are_read(data: bytes) -> None:
    assert decode(data).image.size in ((80, 60), (64, 48))
