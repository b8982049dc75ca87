"""DICOM radiographs: pixel values computed by hand for every way in which they are stored."""

import io
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate

from emx_shared.imaging import BadImage, ImageTooLarge, NotAnImage, decode
from support.dicom import COLUMNS, ROWS, Pixels, lossless_jpeg, lut, radiograph, ramp, written
from support.paths import ROOT

SHIPPED = Path(pydicom.__file__).parent / "data"
SECONDARY_CAPTURE = uid.SecondaryCaptureImageStorage


def shown(data: bytes) -> Pixels:
    return np.asarray(decode(data).image, dtype=np.int64)


WAYS = [
    uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000Lossless,
]  # fmt: skip


@pytest.mark.parametrize("syntax", WAYS, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("bits", "signed"), [(8, False), (8, True), (10, False), (12, False), (12, True), (16, False), (16, True)]
)
@pytest.mark.parametrize("how", ["range", "rescale", "window", "rescale+window"])
def test_values_by_hand(syntax: uid.UID, photometric: str, bits: int, signed: bool, how: str) -> None:
    pixels = ramp(bits, signed)
    ds = radiograph(pixels, bits, PhotometricInterpretation=photometric)
    values = pixels.astype(float)
    if "rescale" in how:
        ds.RescaleSlope, ds.RescaleIntercept = "-0.5", "7"
        values = values * -0.5 + 7
    if "window" in how:
        middle, width = float(np.median(values)), 2.0 ** (bits - 2)
        ds.WindowCenter, ds.WindowWidth = f"{middle:g}", f"{width:g}"
        middle = float(ds.WindowCenter)
        expected = ((values - (middle - 0.5)) / (width - 1) + 0.5) * 255  # PS3.3 C.11.2.1.2.1
    else:
        expected = (values - values.min()) / (values.max() - values.min()) * 255
    expected = np.rint(np.clip(expected, 0, 255))
    if photometric == "MONOCHROME1":
        expected = 255 - expected
    assert_allclose(shown(written(ds, syntax)), expected, atol=1)


def test_a_full_range_of_8_bits_is_kept_exactly() -> None:
    pixels = ramp(8)
    assert_array_equal(shown(written(radiograph(pixels, 8))), pixels)
    assert_array_equal(
        shown(written(radiograph(pixels, 8, PhotometricInterpretation="MONOCHROME1"))), 255 - pixels
    )
    window = {"WindowCenter": "128", "WindowWidth": "256"}
    assert_array_equal(shown(written(radiograph(pixels, 8, **window))), pixels)


def test_an_unwindowed_dicom_looks_as_a_16_bit_png_of_the_same_pixels() -> None:
    pixels, buffer = ramp(12), io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert_allclose(shown(written(radiograph(pixels, 12))), shown(buffer.getvalue()), atol=1)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_first_window_and_its_function(function: str) -> None:
    pixels = ramp(12)
    ds = radiograph(pixels, 12, VOILUTFunction=function, WindowCenter=["2000", "100"], WindowWidth=["1000", "50"])
    x = pixels.astype(float)
    expected = {
        "LINEAR": ((x - 1999.5) / 999 + 0.5) * 255,
        "LINEAR_EXACT": ((x - 2000) / 1000 + 0.5) * 255,
        "SIGMOID": 255 / (1 + np.exp(-4 * (x - 2000) / 1000)),
    }[function]
    assert_array_equal(shown(written(ds)), np.rint(np.clip(expected, 0, 255)))


def test_a_window_without_width_gives_way_to_the_images_range() -> None:
    pixels = ramp(12)
    ds = radiograph(pixels, 12, WindowCenter="100", WindowWidth="0")
    assert_array_equal(shown(written(ds)), shown(written(radiograph(pixels, 12))))


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
@pytest.mark.parametrize(("bits", "entries"), [(8, 4096), (12, 1024), (16, 65_536)])
def test_voi_lut(bits: int, entries: int, syntax: uid.UID) -> None:
    pixels = ramp(16 if entries > 4096 else 12)
    table = (np.linspace(0, 1, entries) ** 2 * (2**bits - 1)).astype(np.uint16)
    first = 100 if entries < 4096 else 0
    ds = radiograph(pixels, 16, VOILUTSequence=lut(table, first, bits), WindowCenter="1", WindowWidth="2")
    index = np.clip(pixels.astype(int) - first, 0, entries - 1)
    assert_array_equal(shown(written(ds, syntax)), np.rint(table[index] * (255 / (2**bits - 1))))


def test_modality_lut_comes_before_the_window() -> None:
    pixels = ramp(12)
    table = np.arange(4096)[::-1].astype(np.uint16)
    ds = radiograph(pixels, 12, ModalityLUTSequence=lut(table, 0, 16), WindowCenter="2048", WindowWidth="4096")
    assert_array_equal(shown(written(ds)), np.rint((table[pixels] - 2047.5) / 4095 * 255 + 127.5))


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless])
def test_bits_that_are_not_stored_are_not_seen(syntax: uid.UID) -> None:
    """Old files keep overlays in them."""
    pixels = ramp(12)
    ds = radiograph(pixels | (np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) % 16 << 12).astype("u2"), 12)
    if syntax == uid.RLELossless:
        ds.BitsStored = 16
        ds.compress(syntax)
        ds.BitsStored = 12
    assert_array_equal(shown(written(ds)), shown(written(radiograph(pixels, 12))))


SHIPPED_COMPRESSED = {
    "MR_small_jpeg_ls_lossless.dcm": ("MR_small.dcm", 0),
    "MR_small_jp2klossless.dcm": ("MR_small.dcm", 0),
    "MR_small_RLE.dcm": ("MR_small.dcm", 0),
    "MR_small_bigendian.dcm": ("MR_small.dcm", 0),
}


def as_radiograph(name: str) -> bytes:
    """One of pydicom's own files under the modality of a radiograph."""
    ds = pydicom.dcmread(str(get_testdata_file(name, download=False)))
    ds.Modality, ds.BodyPartExamined = "CR", "CHEST"
    buffer = io.BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", SHIPPED_COMPRESSED)
def test_pydicoms_files_look_the_same_however_compressed(name: str) -> None:
    plain, tolerance = SHIPPED_COMPRESSED[name]
    assert_allclose(shown(as_radiograph(name)), shown(as_radiograph(plain)), atol=tolerance)


def test_jpeg_of_8_and_12_bits() -> None:
    """Lossy ones by their own encoder or reference; 12 bits from pydicom's own file."""
    smooth, buffer = Image.linear_gradient("L"), io.BytesIO()
    smooth.save(buffer, "JPEG", quality=95)
    ds = radiograph(np.asarray(smooth), 8)
    ds.PixelData = encapsulate([buffer.getvalue()])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    assert_allclose(shown(written(ds)), np.asarray(smooth), atol=3)
    assert decode(as_radiograph("JPGExtended.dcm")).image.size == (256, 1024)


def test_jpeg_lossless() -> None:
    """ITU-T T.81 process 14, first-order prediction: pydicom's file is in colour, so the frame is made here."""
    pixels = ramp(12)
    ds = radiograph(pixels, 12)
    ds.PixelData = encapsulate([lossless_jpeg(pixels)])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = uid.JPEGLosslessSV1
    expected = shown(written(radiograph(pixels, 12)))
    assert_array_equal(shown(written(ds)), expected)
    ds.file_meta.TransferSyntaxUID = uid.JPEGLossless
    assert_array_equal(shown(written(ds)), expected)


@pytest.mark.parametrize("syntax", [uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K])
def test_high_throughput_jpeg_2000(syntax: uid.UID) -> None:
    """The frame is by imagecodecs' ``htj2k_encode``: pydicom has no encoder."""
    ds = radiograph(ramp(12), 16)
    ds.PixelData = encapsulate([(ROOT / "tests" / "data" / "ramp.htj2k").read_bytes()])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = syntax
    assert_allclose(shown(written(ds)), ramp(12) / 4095 * 255, atol=1)


@pytest.mark.parametrize(
    ("elements", "spacing"),
    [
        ({}, None),
        ({"ImagerPixelSpacing": ["0.2", "0.1"]}, (0.2, 0.1)),
        ({"ImagerPixelSpacing": ["0.2", "0.1"], "PixelSpacing": ["0.15", "0.16"]}, (0.15, 0.16)),
        ({"PixelSpacing": ["0", "0"]}, None),
        ({"PixelSpacing": "0.15"}, None),
    ],
)
def test_pixel_spacing(elements: dict[str, Any], spacing: tuple[float, float] | None) -> None:
    facts = decode(written(radiograph(ramp(8), 8, **elements))).facts
    assert facts.pixel_spacing == spacing
    assert facts.media_type == "application/dicom"
    assert "Doe" not in facts.model_dump_json()
    assert "SECRET" not in facts.model_dump_json()


@pytest.mark.parametrize(
    ("elements", "error", "why"),
    [
        ({"Modality": "CT"}, NotAnImage, "CT, computed tomography"),
        ({"Modality": "RF"}, NotAnImage, "RF"),
        ({"Modality": "SR"}, NotAnImage, "a structured report"),
        ({"Modality": "Doe^Jane", "SOPClassUID": SECONDARY_CAPTURE}, NotAnImage, "not one that is known"),
        ({"Modality": "", "SOPClassUID": SECONDARY_CAPTURE}, NotAnImage, "not given"),
        ({"PhotometricInterpretation": ""}, BadImage, "no valid PhotometricInterpretation"),
        ({"BodyPartExamined": "HAND"}, BadImage, "not of the chest"),
        ({"BodyPartExamined": "T-Spine"}, BadImage, "not of the chest"),
        ({"NumberOfFrames": "2"}, BadImage, "several frames"),
        ({"SamplesPerPixel": 3}, BadImage, "colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, BadImage, "colour"),
        ({"BitsAllocated": 32}, BadImage, "8 or 16"),
        ({"Rows": 60_000, "Columns": 60_000}, ImageTooLarge, "60000×60000"),
        ({"Rows": 8}, BadImage, "each side"),
        ({"Rows": 1000}, BadImage, "cut short"),
    ],
)
def test_refusals(elements: dict[str, Any], error: type[BadImage], why: str) -> None:
    ds = radiograph(ramp(8), 8)
    for name, value in elements.items():
        setattr(ds, name, value)
    with pytest.raises(BadImage, match=why) as refused:
        decode(written(ds))
    assert type(refused.value) is error
    assert "Doe" not in str(refused.value)


@pytest.mark.parametrize("part", ["", "CHEST", "THORAX", "LUNG", "RIB", "Chest PA", "TORAX", "WHOLEBODY"])
def test_whatever_may_be_a_chest_is_read(part: str) -> None:
    decode(written(radiograph(ramp(8), 8, BodyPartExamined=part)))


def test_laterals_are_read() -> None:
    decode(written(radiograph(ramp(8), 8, ViewPosition="LL")))


def test_without_its_preamble_it_is_not_an_image() -> None:
    data = written(radiograph(ramp(8), 8))
    for stripped in (data[132:], data[128:]):
        with pytest.raises(NotAnImage):
            decode(stripped)


def test_without_pixels() -> None:
    ds = radiograph(ramp(8), 8)
    del ds.PixelData
    with pytest.raises(BadImage, match="no pixels"):
        decode(written(ds))


def test_other_transfer_syntaxes_are_refused() -> None:
    data = written(radiograph(ramp(8), 8))
    meta = uid.ExplicitVRLittleEndian.encode()
    with pytest.raises(BadImage, match="transfer syntax"):
        decode(data.replace(meta, b"1.2.840.10008.1.2.9"))


def test_what_a_deflated_file_unpacks_to_is_bounded() -> None:
    data = written(radiograph(ramp(8), 8), uid.DeflatedExplicitVRLittleEndian)
    with pytest.raises(ImageTooLarge, match="unpacked"):
        decode(data, max_bytes=2000)
    start = data.index(b"1.2.840.10008.1.2.1.99") + 22
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = data[:start] + deflate.compress(bytes(2**30)) + deflate.flush()
    with pytest.raises(ImageTooLarge):
        decode(bomb)


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEGBaseline8Bit, uid.JPEGLSLossless])
def test_a_frame_larger_than_announced_is_refused_before_it_is_decoded(syntax: uid.UID) -> None:
    huge = {
        uid.JPEG2000Lossless: b"\xff\x4f\xff\x51\0\x29\0\0" + b"\0\0\xff\xff" * 2 + bytes(24) + b"\0\1",
        uid.JPEGBaseline8Bit: b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\1",
        uid.JPEGLSLossless: b"\xff\xd8\xff\xf7\0\x0b\x08\xff\xff\xff\xff\1",
    }[syntax]
    ds = radiograph(ramp(8), 8)
    ds.PixelData = encapsulate([huge + bytes(100)])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = syntax
    with pytest.raises(BadImage, match="not of the size"):
        decode(written(ds))


def test_every_file_that_ships_with_pydicom_is_read_or_refused() -> None:
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert len(files) > 150
    for path in files:
        try:
            assert decode(path.read_bytes()).image.mode == "L"
        except BadImage as error:
            assert path.name not in str(error)


def test_every_file_that_ships_with_pydicom_is_read_or_refused_as_a_radiograph() -> None:
    """As above, but beyond the modality: to the pixels."""
    read = 0
    for path in (SHIPPED / "test_files").rglob("*"):
        try:
            ds = pydicom.dcmread(path)
            ds.Modality, ds.BodyPartExamined = "CR", ""
            buffer = io.BytesIO()
            ds.save_as(buffer)
        except Exception:  # directories, files of other kinds, and those that pydicom can't write again
            continue
        try:
            decode(buffer.getvalue())
            read += 1
        except BadImage:
            pass
    assert read >= 15


def test_nothing_of_the_file_is_logged() -> None:
    ds = radiograph(ramp(8), 8, PatientBirthDate="")
    data = written(ds).replace(b"CHEST", b"Jane\0")
    data = data.replace(b"DA\x00\x00", b"DA\x04\x00Jane").replace(b"LO\x0a\x00SECRET-77 ", b"IS\x0a\x00SECRET-77 ")
    code = (
        "import logging, sys; logging.basicConfig(level=0)\n"
        "from emx_shared.imaging import BadImage, decode\n"
        "data = sys.stdin.buffer.read()\n"
        "for end in range(len(data), 100, -len(data) // 40):\n"
        "    try: decode(data[:end])\n"
        "    except BadImage as error: print(error)\n"
    )
    env = {**os.environ, "PYTHONWARNINGS": "default"}
    run = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True, env=env)
    assert b"cut short" in run.stdout
    for secret in (b"Jane", b"SECRET", b"Doe"):
        assert secret not in run.stdout + run.stderr
