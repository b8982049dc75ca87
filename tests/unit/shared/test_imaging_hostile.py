"""Damaged and crafted files of every kind: an image or a BadImage, within bounds of time and memory."""

import io
import os
import struct
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from emx_shared.imaging import BadImage, decode
from support.dicom import file_of
from support.memory import PRINT_PEAK, forget_peak, peak_megabytes
from support.paths import FIELD_FILES

SECONDS, MEGABYTES = 10, 2000


def _raster(kind: str, **options: Any) -> bytes:
    pixels = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    image = Image.fromarray(pixels) if kind in ("PNG", "TIFF") else Image.fromarray(pixels.astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def _dicom(syntax: uid.UID, frame: bytes = b"") -> bytes:
    pixels = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SOPClassUID, ds.SOPInstanceUID = uid.ComputedRadiographyImageStorage, "1.2.3"
    ds.Modality, ds.BodyPartExamined, ds.PhotometricInterpretation = "CR", "CHEST", "MONOCHROME1"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.BitsAllocated = 48, 64, 1, 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 15, 0
    ds.WindowCenter, ds.WindowWidth, ds.RescaleSlope, ds.RescaleIntercept = "100", "500", "1", "-5"
    ds.PixelSpacing = ["0.1", "0.2"]
    item = Dataset()
    item.LUTDescriptor = [8, 0, 16]
    item.add_new("LUTData", "OW", bytes(range(1, 17)))
    ds.VOILUTSequence = [item]
    ds["VOILUTSequence"].is_undefined_length = True
    ds.PixelData = encapsulate([frame]) if frame else pixels.tobytes()
    ds["PixelData"].VR = "OB" if frame else "OW"
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax in (uid.RLELossless, uid.JPEG2000Lossless) and not frame:
        ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        ds.compress(syntax)
    return file_of(ds)


def _shipped(name: str) -> bytes:
    """One of pydicom's own files under the modality of a radiograph."""
    ds = pydicom.dcmread(str(get_testdata_file(name, download=False)))
    ds.Modality, ds.BodyPartExamined = "CR", "CHEST"
    buffer = io.BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


KINDS = {
    "png": lambda: _raster("PNG"),
    "jpeg": lambda: _raster("JPEG"),
    "progressive jpeg": lambda: _raster("JPEG", progressive=True),
    "tiff": lambda: _raster("TIFF"),
    "tiff lzw": lambda: _raster("TIFF", compression="tiff_lzw"),
    "tiff deflate": lambda: _raster("TIFF", compression="tiff_adobe_deflate"),
    "implicit": lambda: _dicom(uid.ImplicitVRLittleEndian),
    "explicit": lambda: _dicom(uid.ExplicitVRLittleEndian),
    "big-endian": lambda: _dicom(uid.ExplicitVRBigEndian),
    "deflated": lambda: _dicom(uid.DeflatedExplicitVRLittleEndian),
    "rle": lambda: _dicom(uid.RLELossless),
    "jpeg 2000": lambda: _dicom(uid.JPEG2000Lossless),
    "jpeg 2000 lossy": lambda: _shipped("JPEG2000.dcm"),
    "jpeg-ls": lambda: _shipped("MR_small_jpeg_ls_lossless.dcm"),
    "jpeg extended": lambda: _shipped("JPGExtended.dcm"),
    "jpeg baseline": lambda: _dicom(uid.JPEGBaseline8Bit, _raster("JPEG")),
}
FIELD = [
    "r02_la16_12.png", "r03b_rgba16_12.png", "r04_rgb16_12.tif", "r06_exif6.png", "r11_big.tif", "j01_jp2.dcm",
    "j08_rle_frag.dcm", "d20c_no_meta.dcm", "d25c_side.dcm", "d30_un_seq.dcm", "d33_lutbits0.dcm",
]  # fmt: skip
KINDS |= {name: (FIELD_FILES / name).read_bytes for name in FIELD}
whole = cache(lambda kind: KINDS[kind]())


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_that_are_damaged_below_are_whole(kind: str) -> None:
    if kind != "jpeg baseline":  # its 8 bits belie the 16 of the header
        decode(whole(kind))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=int(os.environ.get("EXAMPLES", "60")), deadline=SECONDS * 1000, derandomize=True)
@given(data=st.data())
def test_damaged_files_are_read_or_refused(kind: str, data: st.DataObject) -> None:
    damaged, before = bytearray(whole(kind)), forget_peak()
    places = st.one_of(st.integers(0, min(2000, len(damaged) - 1)), st.integers(0, len(damaged) - 1))
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)):
        damaged[at] = value
    cut = data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))
    with suppress(BadImage):
        assert decode(bytes(damaged[:cut])).image.mode == "L"
    assert peak_megabytes() - before < MEGABYTES


def _start() -> bytes:
    """The preamble and meta information of an implicit little-endian file."""
    data = _dicom(uid.ImplicitVRLittleEndian)
    return data[: data.index(struct.pack("<HH", 8, 0x16), 132)]


def _rle_bomb() -> bytes:
    return _dicom(uid.RLELossless, struct.pack("<3I", 2, 64, 70) + bytes(58) + b"\x81\x00" * 25_000_000)


def _tag_bomb() -> bytes:
    body = bytes(40_000_000)
    entries = b"".join(struct.pack("<HHII", 40_000 + n, 7, len(body), 8) for n in range(500))
    return struct.pack("<2sHI", b"II", 42, 8 + len(body)) + body + struct.pack("<H", 500) + entries + bytes(4)


def _exif_bomb() -> bytes:
    tiff = _tag_bomb()
    segments = [tiff[at : at + 65_000] for at in range(0, len(tiff), 65_000)]
    app1 = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in segments)
    return b"\xff\xd8" + app1 + _raster("JPEG")[2:]


CRAFTED = {
    "runs that grow to gigabytes": _rle_bomb,
    "millions of elements": lambda: _start() + b"".join(
        struct.pack("<HHI", 9 + 2 * (n >> 16), n & 0xFFFF, 0) for n in range(4_000_000)
    ),
    "millions of items": lambda: _start() + struct.pack("<HHI", 8, 0x1140, 0xFFFFFFFF)
        + b"\xfe\xff\x00\xe0\0\0\0\0" * 6_000_000,
    "sequences within sequences": lambda: _start() + (
        struct.pack("<HHI", 8, 0x1140, 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    ) * 9000,
    "millions of fragments": lambda: _dicom(uid.JPEG2000Lossless, b"\0" * 8)[:-16]
        + b"\xfe\xff\x00\xe0\0\0\0\0" * 6_000_000,
    "a TIFF whose tags share one value": _tag_bomb,
    "EXIF whose tags share one value": _exif_bomb,
}  # fmt: skip


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_files_cost_little(name: str, tmp_path: Path) -> None:
    (tmp_path / "crafted").write_bytes(CRAFTED[name]())
    code = (
        "import sys; from pathlib import Path; from emx_shared.imaging import BadImage, decode\n"
        "try: decode(Path(sys.argv[1]).read_bytes())\n"
        "except BadImage as error: print(error, file=sys.stderr)\n" + PRINT_PEAK
    )
    began = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "crafted"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < MEGABYTES, run.stderr
    assert time.monotonic() - began < SECONDS, run.stderr
    print(run.stdout.strip(), "MB", round(time.monotonic() - began, 1), "s", run.stderr.strip())
