"""What a refusal says, and what a warning says of a file that is read otherwise than it says."""

import io
import struct

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from pydicom import uid

from emx_shared.imaging import BadImage, decode
from support.dicom import COLUMNS, ROWS, Pixels, radiograph, ramp, written
from support.files import file

PICTURE = Image.fromarray(np.arange(60 * 80, dtype=np.int64).reshape(60, 80).astype(np.uint8))


def refusal(data: bytes) -> str:
    with pytest.raises(BadImage) as refused:
        decode(data)
    return str(refused.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_file_that_is_cut_short_is_said_to_be(kind: str) -> None:
    noise = Image.effect_noise((200, 200), 50)
    data = file(noise, kind)
    assert f"The {kind} is cut short" in refusal(data[: len(data) * 6 // 10])


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        (uid.ExplicitVRLittleEndian, "pixels are cut short: "),
        (uid.JPEG2000Lossless, "cut short within its pixels"),
        (uid.RLELossless, "cut short within its pixels"),
        (uid.DeflatedExplicitVRLittleEndian, "cut short"),
    ],
)
def test_a_dicom_file_that_is_cut_short_is_said_to_be(syntax: uid.UID, words: str) -> None:
    data = written(radiograph(np.asarray(Image.effect_noise((64, 48), 50)), 8), syntax)
    assert words in refusal(data[: len(data) * 8 // 10])
    assert "cut short before them" in refusal(data[:400])


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("JPEG 2000", lambda frame: frame[:100] + bytes(400) + frame[500:]),
        ("RLE", lambda frame: struct.pack("<16I", 1, 64, *[0] * 14) + b"\x05"),
    ],
)
def test_compressed_pixels_that_are_damaged_are_named(kind: str, make: object) -> None:
    ds = radiograph(np.asarray(Image.effect_noise((64, 48), 50)), 8)
    syntax = uid.RLELossless if kind == "RLE" else uid.JPEG2000Lossless
    ds.compress(syntax)
    data = written(ds, syntax)
    at = data.index(b"\xe0\x7f\x10\x00OB")
    first = at + 12 + 8 + struct.unpack_from("<I", data, at + 16)[0]
    length = struct.unpack_from("<I", data, first + 4)[0]
    assert callable(make)
    frame = make(data[first + 8 : first + 8 + length]).ljust(length, b"\0")
    assert kind in refusal(data[: first + 8] + frame + data[first + 8 + length :])


def jpeg_of(marker: int, bits: int) -> bytes:
    data = bytearray(file(PICTURE, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = marker, bits
    return bytes(data)


@pytest.mark.parametrize(
    ("marker", "bits", "words"),
    [
        (0xC3, 8, "is lossless"),
        (0xC9, 8, "arithmetically coded"),
        (0xC5, 8, "hierarchical"),
        (0xC1, 12, "12 bits"),
    ],
)
def test_a_jpeg_of_another_sort_is_named(marker: int, bits: int, words: str) -> None:
    assert words in refusal(jpeg_of(marker, bits))


def test_a_tiff_of_another_sort_is_named() -> None:
    data = bytearray(file(PICTURE, "TIFF"))
    at = data.index(struct.pack("<HHI", 258, 3, 1))
    data[at + 8] = 64
    assert "1 × 64 bits" in refusal(bytes(data))
    assert "zstd" in refusal(file(PICTURE, "TIFF", compression="zstd"))


def tiff_of(*pages: tuple[int, Image.Image]) -> bytes:
    """A TIFF whose directories have these NewSubfileTypes."""
    buffer = io.BytesIO()
    (first, image), *others = pages
    rest = []
    for subfile, page in others:
        page.encoderinfo = {"tiffinfo": {254: subfile}}
        rest.append(page)
    image.save(buffer, "TIFF", save_all=True, append_images=rest, tiffinfo={254: first})
    return buffer.getvalue()


def test_a_tiff_with_a_thumbnail_is_its_picture() -> None:
    small = PICTURE.resize((40, 32))
    for data in (tiff_of((0, PICTURE), (1, small)), tiff_of((1, small), (0, PICTURE))):
        assert_array_equal(np.asarray(decode(data).image), np.asarray(PICTURE))
    assert "several pages" in refusal(tiff_of((0, PICTURE), (0, PICTURE)))


def dicom(pixels: Pixels, bits: int, **elements: object) -> tuple[Pixels, str]:
    decoded = decode(written(radiograph(pixels, bits, **elements)))
    return np.asarray(decoded.image, dtype=int), " ".join(decoded.warnings)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_values_with_more_bits_than_are_stored_are_kept_whole(signed: bool) -> None:
    values = ramp(12, signed)
    picture, warnings = dicom(values, 10, HighBit=9)
    assert_allclose(picture, dicom(values, 12)[0], atol=1)
    assert "BitsStored" in warnings


def test_values_that_are_unsigned_under_a_signed_header_are_kept_whole() -> None:
    picture, warnings = dicom(ramp(12), 12, PixelRepresentation=1)
    assert_allclose(picture, dicom(ramp(12), 12)[0], atol=1)
    assert "PixelRepresentation" in warnings


@pytest.mark.parametrize("value", [65_535, 60_000])
@pytest.mark.parametrize("columns", [1, 20])
def test_a_value_far_from_all_others_is_not_of_the_range(value: int, columns: int) -> None:
    pixels = ramp(12)
    lone = pixels.copy()
    lone[:, :columns] = value
    picture, warnings = dicom(lone, 16)
    assert_allclose(picture[:, columns:], dicom(pixels, 12)[0][:, columns:], atol=4)
    assert "far from all others" in warnings
    assert "far from all others" not in dicom(pixels, 16)[1]


def test_lone_values_on_both_sides_are_left_out() -> None:
    pixels = ramp(12).astype("i2")
    lone = pixels.copy()
    lone[:, :10], lone[:, 10:20] = -32_768, 32_767
    picture, _ = dicom(lone, 16)
    assert_allclose(picture[:, 20:], dicom(pixels, 16)[0][:, 20:], atol=4)


def test_a_picture_of_two_values_keeps_both() -> None:
    pixels = np.where(np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) % 64 < 32, 5, 4000).astype("u2")
    picture, warnings = dicom(pixels, 12)
    assert set(np.unique(picture)) == {0, 255}
    assert "only a few greys" in warnings


def test_a_png_of_16_bits_leaves_lone_values_out_too() -> None:
    pixels = np.asarray(ramp(12)).copy()
    expected = np.asarray(decode(file(Image.fromarray(pixels), "PNG")).image, dtype=int)
    pixels[:, :20] = 65_535
    decoded = decode(file(Image.fromarray(pixels), "PNG"))
    assert_allclose(np.asarray(decoded.image, dtype=int)[:, 20:], expected[:, 20:], atol=4)
    assert "far from all others" in " ".join(decoded.warnings)
