"""Which bits of a sample are its value, however it is compressed, and the range of the values that are there."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pydicom import uid
from pydicom.encaps import encapsulate

from emx_shared.imaging import decode
from support.dicom import COLUMNS, ROWS, Pixels, lossless_jpeg, radiograph, ramp, written

NATIVE = [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
SYNTAXES = [*NATIVE, uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLosslessSV1]


def file_of_words(words: Pixels, syntax: uid.UID, **elements: Any) -> bytes:
    """A file with all 16 bits of each word, under a header that says something else of them."""
    ds = radiograph(words.astype("u2"), 16)
    if syntax == uid.JPEGLosslessSV1:
        ds.PixelData = encapsulate([lossless_jpeg(words.astype("u2"), 16)])
        ds["PixelData"].VR = "OB"
        ds.file_meta.TransferSyntaxUID = syntax
    elif syntax.is_compressed:
        ds.compress(syntax)
    for name, value in elements.items():
        setattr(ds, name, value)
    return written(ds, syntax)


def shown(data: bytes) -> Pixels:
    return np.asarray(decode(data).image, dtype=np.int64)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize(("bits", "high"), [(12, 11), (12, 15), (12, 13), (10, 15), (14, 13), (16, 15)])
def test_only_the_stored_bits_are_seen(syntax: uid.UID, signed: bool, bits: int, high: int) -> None:
    values = ramp(bits, signed)
    stored = values.astype(int) & (2**bits - 1)
    others = np.random.default_rng(7).integers(0, 2**16, (ROWS, COLUMNS))
    kept = (2**bits - 1) << (high + 1 - bits)
    words = stored << (high + 1 - bits) | others & ~kept & 0xFFFF
    data = file_of_words(words, syntax, BitsStored=bits, HighBit=high, PixelRepresentation=int(signed))
    assert_array_equal(shown(data), shown(written(radiograph(values, bits))))


@pytest.mark.parametrize(
    "elements", [{"HighBit": None}, {"HighBit": 3}, {"HighBit": 99}, {"BitsStored": 0}, {"BitsStored": 77}]
)
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless])
def test_bits_that_cannot_be_are_those_of_the_sample(syntax: uid.UID, elements: dict[str, Any]) -> None:
    pixels = ramp(16)
    assert_array_equal(shown(file_of_words(pixels, syntax, **elements)), shown(written(radiograph(pixels, 16))))


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_a_codestream_of_fewer_bits_than_are_stored_has_its_own_sign(signed: bool) -> None:
    values = ramp(12, signed)
    ds = radiograph(values, 12)
    ds.PixelData = encapsulate([lossless_jpeg(values.astype(int) & 0xFFF)])
    ds["PixelData"].VR, ds.file_meta.TransferSyntaxUID = "OB", uid.JPEGLosslessSV1
    ds.BitsStored, ds.HighBit = 16, 15
    assert_array_equal(shown(written(ds)), shown(written(radiograph(values, 12))))


def test_a_codestream_of_8_bits_is_read_under_a_header_of_16() -> None:
    ds = radiograph(ramp(8), 8)
    ds.compress(uid.JPEG2000Lossless)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    assert_array_equal(shown(written(ds, uid.JPEG2000Lossless)), shown(written(radiograph(ramp(8), 8))))


@pytest.mark.parametrize("pixels", [ramp(8), ramp(8)[:47, :33]], ids=["even", "odd"])
def test_8_bits_in_big_endian_words(pixels: Pixels) -> None:
    """DICOM PS3.5, 8.1.1: the first of two pixels is in a word's low byte."""
    ds = radiograph(pixels, 8)
    padded = np.append(pixels.ravel(), pixels.ravel()[:1]) if pixels.size % 2 else pixels.ravel()
    ds.PixelData = padded.view("<u2").astype(">u2").tobytes()
    ds["PixelData"].VR = "OW"
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    assert_array_equal(shown(written(ds)), shown(written(radiograph(pixels, 8))))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("signed", "padding", "limit"),
    [
        (False, 65_535, None), (False, 0, None), (False, 65_000, 65_535), (False, 65_535, 65_000),
        (True, -2000, None), (True, -32_768, -30_000), (True, 63_536, None),
    ],
)  # fmt: skip
def test_padding_is_black_and_not_of_the_range(
    signed: bool, padding: int, limit: int | None, photometric: str
) -> None:
    pixels = ramp(12).astype("i2" if signed else "u2") // 2 + 500
    expected = shown(written(radiograph(pixels, 16, PhotometricInterpretation=photometric)))
    padded = pixels.copy()
    padded[:, :20] = np.array([padding if limit is None else (padding + limit) // 2]).astype(padded.dtype)
    ds = radiograph(padded, 16, PhotometricInterpretation=photometric)
    vr = "SS" if padding < 0 else "US"
    ds.add_new("PixelPaddingValue", vr, padding)
    if limit is not None:
        ds.add_new("PixelPaddingRangeLimit", vr, limit)
    expected[:, :20] = 0
    assert_allclose(shown(written(ds))[1:-1], expected[1:-1], atol=3)


def test_an_image_of_padding_alone_is_shown() -> None:
    pixels = ramp(12)
    ds = radiograph(pixels, 12)
    ds.add_new("PixelPaddingValue", "US", 0)
    ds.add_new("PixelPaddingRangeLimit", "US", 4095)
    assert_array_equal(shown(written(ds)), shown(written(radiograph(pixels, 12))))
