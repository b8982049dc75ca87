"""JPEG 2000 in DICOM: what a few bytes may ask a decoder to set aside."""

import io
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from emx_shared.imaging import BadImage, decode
from emx_shared.imaging.dicom.jpeg2000 import check_cost
from support.memory import PRINT_PEAK

SIDE, MEGABYTES = 7000, 250
RAMP = np.arange(512 * 512, dtype=np.uint16).reshape(512, 512)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">HH", marker, len(body) + 2) + body


def style(levels: int = 5, block: int = 6, precincts: bytes = b"") -> bytes:
    """SPcod; ``block`` the exponent of a code-block's side."""
    return bytes([levels, block - 2, block - 2, 0, 1]) + precincts


def cod(layers: int = 1, precincts: bytes = b"", **parts: Any) -> bytes:
    return segment(
        0xFF52, struct.pack(">BBHB", bool(precincts), 0, layers, 0) + style(precincts=precincts, **parts)
    )


def coc(precincts: bytes = b"", **parts: Any) -> bytes:
    return segment(0xFF53, bytes([0, bool(precincts)]) + style(precincts=precincts, **parts))


def codestream(main: bytes, part: bytes = b"", tile: int = SIDE, parts: int = 2, side: int = SIDE) -> bytes:
    """16 bits, with ``main`` in its header, and ``part`` in that of the last of so many tile-parts."""
    size = segment(0xFF51, struct.pack(">H8IH3B", 0, side, side, 0, 0, tile, tile, 0, 0, 1, 15, 1, 1))
    steps = segment(0xFF5C, bytes([0x40] + [16 << 3] * 100))
    data = b"\xff\x4f" + size + main + steps
    for number in range(parts):
        own = part if number == parts - 1 else b""
        data += (
            struct.pack(">HHHIBB", 0xFF90, 10, 0, 24 + len(own), number % 256, 0) + own + b"\xff\x93" + bytes(10)
        )
    return data + b"\xff\xd9"


def dicom(frame: bytes, side: int = SIDE) -> bytes:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.JPEG2000
    ds.SOPClassUID, ds.SOPInstanceUID = uid.ComputedRadiographyImageStorage, "1.2.3"
    ds.Modality, ds.BodyPartExamined, ds.PhotometricInterpretation = "CR", "CHEST", "MONOCHROME2"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.BitsAllocated = side, side, 1, 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 15, 0
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


CRAFTED = {
    "tiles": codestream(cod(levels=0), tile=28),
    "code-blocks": codestream(cod(block=2)),
    "precincts": codestream(cod(levels=0, precincts=b"\x11")),
    "packets": codestream(cod(layers=65_535, precincts=b"\x77" * 6)),
    "precincts of a component": codestream(cod() + coc(levels=0, precincts=b"\x11")),
    "code-blocks of a tile": codestream(cod(), cod(block=2)),
    "precincts of a tile's component": codestream(cod(), coc(levels=0, precincts=b"\x11")),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_codestream_that_asks_for_gigabytes_is_refused_at_once(name: str, tmp_path: Path) -> None:
    (tmp_path / "crafted").write_bytes(dicom(CRAFTED[name]))
    code = (
        "import sys; from pathlib import Path; from emx_shared.imaging import BadImage, decode\n"
        "try: decode(Path(sys.argv[1]).read_bytes())\n"
        "except BadImage as error: print(error)\n" + PRINT_PEAK
    )
    command = [sys.executable, "-c", code, str(tmp_path / "crafted")]
    bound = (4 * 2**30,) * 2
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, bound),
    )
    *why, megabytes = run.stdout.splitlines()
    assert why and "cut into more" in why[0]
    assert int(megabytes) < MEGABYTES


@pytest.mark.parametrize(
    "frame",
    [
        codestream(cod(levels=33)),
        codestream(cod(levels=5, precincts=b"\x77" * 6)[:-8]),
        codestream(b""),
        codestream(segment(0xFF30, b"ab") + cod()),
        codestream(segment(0xFF74, b"ab") + cod()),
        codestream(cod() + segment(0xFF64, b"\0\1x") * 20_000),
        codestream(cod(), parts=20_000),
        codestream(cod(), tile=0),
        codestream(cod())[:60],
    ],
    ids=[
        "levels",
        "precincts cut short",
        "no style",
        "unknown segment",
        "Part 2",
        "segments",
        "tile-parts",
        "tiles of nothing",
        "cut short",
    ],
)
def test_headers_that_no_radiograph_has_are_refused(frame: bytes) -> None:
    with pytest.raises(BadImage):
        decode(dicom(frame))
    with pytest.raises(Exception):  # noqa: B017
        check_cost(frame)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_resolutions": 1},
        {"tile_size": (16, 16), "num_resolutions": 1},
        {"codeblock_size": (4, 4)},
        {"precinct_size": (32, 32), "codeblock_size": (16, 16)},
        {"quality_layers": [40, 20, 10, 5, 0], "progression": "RPCL"},
    ],
)
def test_what_encoders_make_is_read(options: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, "JPEG2000", no_jp2=True, **options)
    pixels = np.asarray(Image.open(buffer)).astype(
        float
    )  # in tiles, Pillow writes 16 bits otherwise than it was told
    expected = np.rint((pixels - pixels.min()) * (255 / np.ptp(pixels)))
    assert_array_equal(np.asarray(decode(dicom(buffer.getvalue(), 512)).image), expected)


@pytest.mark.parametrize("block", [4, 5, 6])
@pytest.mark.parametrize("precincts", [b"", b"\x77" + b"\x88" * 5, b"\x66" * 6])
@pytest.mark.parametrize("tile", [SIDE, 1024, 256])
def test_fifty_megapixels_may_be_cut_as_is_usual(block: int, precincts: bytes, tile: int) -> None:
    check_cost(codestream(cod(layers=20, block=block, precincts=precincts), tile=tile))
