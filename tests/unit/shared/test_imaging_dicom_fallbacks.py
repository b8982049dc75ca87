"""Elements that are invalid, absent or misleading: the next good one is used, and a warning names the other."""

import struct
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from emx_shared.imaging import BadImage, decode
from support.dicom import Pixels, lut, radiograph, ramp, written

RAMP = ramp(12)
BY_RANGE = np.rint(RAMP / 4095 * 255)
EMPTY = Sequence([Dataset()])
SQUARES = (np.linspace(0, 1, 4096) ** 2 * 65_535).astype(np.uint16)
WINDOW = {"WindowCenter": "2000", "WindowWidth": "1000"}
BY_WINDOW = np.rint(np.clip(((RAMP - 1999.5) / 999 + 0.5) * 255, 0, 255))


def read(data: bytes) -> tuple[Pixels, str]:
    decoded = decode(data)
    return np.asarray(decoded.image, dtype=np.int64), " ".join(decoded.warnings)


def of(**elements: Any) -> bytes:
    return written(radiograph(RAMP, 12, **elements))


@pytest.mark.parametrize(
    ("elements", "named"),
    [
        ({"WindowCenter": "2000", "WindowWidth": "0"}, "window 1 is invalid"),
        ({"WindowCenter": "2000", "WindowWidth": "-3000"}, "window 1 is invalid"),
        ({"WindowCenter": "2000", "WindowWidth": "0.9"}, "window 1 is invalid"),
        ({"WindowCenter": "2000"}, "window 1 is invalid"),
        ({"WindowWidth": "2000"}, "window 1 is invalid"),
        ({"WindowCenter": "30000", "WindowWidth": "1000"}, "window 1 leaves the picture without contrast"),
        ({"WindowCenter": "-9000", "WindowWidth": "100"}, "window 1 leaves the picture without contrast"),
        ({"WindowCenter": "2000", "WindowWidth": "9e9"}, "window 1 leaves the picture without contrast"),
        ({"VOILUTSequence": EMPTY}, "VOI LUT 1 is invalid"),
        ({"VOILUTSequence": lut(np.full(4096, 9, np.uint16), 0, 16)}, "VOI LUT 1 leaves the picture without"),
        ({"RescaleSlope": "0"}, "RescaleSlope is 0"),
        ({"ModalityLUTSequence": EMPTY}, "ModalityLUTSequence"),
        ({"ModalityLUTSequence": lut(np.full(4096, 9, np.uint16), 0, 16)}, "ModalityLUTSequence"),
    ],
)
def test_the_range_is_used_where_nothing_else_is_good(elements: dict[str, Any], named: str) -> None:
    picture, warnings = read(of(**elements))
    assert_allclose(picture, BY_RANGE, atol=1)
    assert named in warnings


def with_text(element: str, text: str) -> bytes:
    """A file that has a text where a number should be, which pydicom wouldn't write."""
    data = of(**{**WINDOW, element: "123456"})
    placeholder = pydicom.datadict.dictionary_VR(element).encode() + struct.pack("<H", 6) + b"123456"
    assert data.count(placeholder) == 1
    padded = text.encode() + b" " * (len(text) % 2)
    return data.replace(placeholder, placeholder[:2] + struct.pack("<H", len(padded)) + padded)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-inf", "1e999", "wide", "", "\\", " "])
@pytest.mark.parametrize("element", ["WindowCenter", "WindowWidth"])
def test_a_window_that_is_no_number_is_passed_over(element: str, text: str) -> None:
    picture, warnings = read(with_text(element, text))
    assert_allclose(picture, BY_RANGE, atol=1)
    assert "window 1 is invalid" in warnings


@pytest.mark.parametrize("text", ["NaN", "inf", "steep"])
@pytest.mark.parametrize("element", ["RescaleSlope", "RescaleIntercept"])
def test_a_rescale_that_is_no_number_is_passed_over(element: str, text: str) -> None:
    picture, warnings = read(with_text(element, text))
    assert_array_equal(picture, BY_WINDOW)
    assert element in warnings
    assert text not in warnings


@pytest.mark.parametrize("text", ["2000\\5", "2000,0", " 2000 ", "+2.0E3"])
def test_a_window_is_read_however_its_number_is_written(text: str) -> None:
    assert_array_equal(read(with_text("WindowCenter", text))[0], BY_WINDOW)


def test_the_next_good_window_is_used() -> None:
    picture, warnings = read(of(WindowCenter=["", "50000", "2000"], WindowWidth=["1", "20", "1000"]))
    assert_array_equal(picture, BY_WINDOW)
    assert "window 1 is invalid: the picture shows window 3" in warnings
    assert "window 2 leaves the picture without contrast: the picture shows window 3" in warnings


def test_the_next_good_table_is_used_before_a_window() -> None:
    good = lut(SQUARES, 0, 16)[0]
    picture, warnings = read(of(VOILUTSequence=Sequence([Dataset(), good]), **WINDOW))
    assert_allclose(picture, SQUARES[RAMP] / 65_535 * 255, atol=1)
    assert "VOI LUT 1 is invalid: the picture shows VOI LUT 2" in warnings
    assert_array_equal(read(of(VOILUTSequence=EMPTY, **WINDOW))[0], BY_WINDOW)


@pytest.mark.parametrize("function", ["SAMPLED_SIGMOID", "linear ", "???"])
def test_a_window_of_an_unknown_function_is_linear(function: str) -> None:
    picture, warnings = read(of(VOILUTFunction=function, **WINDOW))
    assert_array_equal(picture, BY_WINDOW)
    assert ("VOILUTFunction" in warnings) == (function != "linear ")


@pytest.mark.parametrize(
    ("said", "has"), [(16, 12), (16, 10), (16, 14), (16, 15), (12, 10), (0, 12), (8, 12), (99, 16)]
)
def test_a_table_of_another_depth_than_it_says_has_that_of_its_entries(said: int, has: int) -> None:
    table = (SQUARES >> (16 - has)).astype(np.uint16)
    picture, warnings = read(of(VOILUTSequence=lut(table, 0, said)))
    assert_allclose(picture, table[RAMP] / (2**has - 1) * 255, atol=1)
    assert f"says {said} bits, but its entries are of {has}" in warnings


def test_a_table_that_does_not_reach_white_is_taken_at_its_word() -> None:
    table = (SQUARES // 65_535 * 0 + np.linspace(0, 3000, 4096)).astype(np.uint16)
    picture, warnings = read(of(VOILUTSequence=lut(table, 0, 12)))
    assert_allclose(picture, table[RAMP] / 4095 * 255, atol=1)
    assert not warnings


@pytest.mark.parametrize("vr", ["US", "SS"])
@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
def test_the_entries_of_a_table_are_unsigned_however_they_are_written(sequence: str, vr: str) -> None:
    table = SQUARES.astype("<u2")
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 16]
    item.add_new("LUTData", vr, table.view("<i2" if vr == "SS" else "<u2").tolist())
    picture, _ = read(of(**{sequence: Sequence([item])}))
    assert_allclose(picture, SQUARES[RAMP] / 65_535 * 255, atol=1)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("rescaled", [-1024, 0, 30_000])
def test_the_first_value_of_a_table_is_signed_or_not_as_its_values_are(signed: bool, rescaled: int) -> None:
    pixels = ramp(12, signed)
    first = int(pixels.min()) + rescaled
    item = Dataset()
    item.LUTDescriptor = [4096, first if signed else first % 2**16, 16]
    item.add_new("LUTData", "US", SQUARES.tolist())
    ds = radiograph(pixels, 12, RescaleSlope="1", RescaleIntercept=str(rescaled))
    ds.VOILUTSequence = Sequence([item])
    picture, _ = read(written(ds, uid.ImplicitVRLittleEndian))
    assert_allclose(picture, SQUARES[RAMP] / 65_535 * 255, atol=1)


@pytest.mark.parametrize("as_words", [False, True], ids=["bytes", "words"])
def test_a_table_of_8_bits_may_have_two_entries_to_a_word(as_words: bool) -> None:
    table = (SQUARES[::16] >> 8).astype(np.uint8)
    item = Dataset()
    item.LUTDescriptor = [256, 0, 8]
    item.add_new(
        "LUTData", "US" if as_words else "OW", table.view("<u2").tolist() if as_words else table.tobytes()
    )
    ds = radiograph(ramp(8), 8)
    ds.VOILUTSequence = Sequence([item])
    assert_array_equal(read(written(ds))[0], table[ramp(8)])


@pytest.mark.parametrize("element", ["NumberOfFrames", "PixelSpacing", "ImagerPixelSpacing", "PatientOrientation"])
def test_other_optional_elements_may_be_invalid(element: str) -> None:
    data = of(**{element: "2" if element == "NumberOfFrames" else ["1", "1"]})
    vr = pydicom.datadict.dictionary_VR(element).encode()
    value = b"2 " if element == "NumberOfFrames" else b"1\\1 "
    old = vr + struct.pack("<H", len(value)) + value
    assert data.count(old) == 1
    picture, _ = read(data.replace(old, vr + struct.pack("<H", len(value)) + b"?" * len(value)))
    assert_array_equal(picture, BY_RANGE)


def test_elements_that_are_absent_are_worked_out() -> None:
    for element in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"):
        ds = radiograph(ramp(16), 16)
        delattr(ds, element)
        assert_array_equal(read(written(ds))[0], np.rint(ramp(16) / 65_535 * 255))


@pytest.mark.parametrize("element", ["Rows", "Columns", "PhotometricInterpretation"])
def test_a_refusal_names_the_element_without_which_there_is_no_picture(element: str) -> None:
    ds = radiograph(RAMP, 12)
    delattr(ds, element)
    with pytest.raises(BadImage, match=f"no valid {element}"):
        decode(written(ds))


@pytest.mark.parametrize(
    "sop_class",
    [
        uid.ComputedRadiographyImageStorage, uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["data set", "meta information"])
def test_without_a_modality_the_sop_class_counts(sop_class: uid.UID, where: str) -> None:
    """VinDr-CXR's files have neither Modality nor SOPClassUID, but the meta information's."""
    ds = radiograph(RAMP, 12, SOPClassUID=sop_class)
    del ds.Modality
    data = written(ds)
    if where == "meta information":
        at = data.index(b"\x08\x00\x16\x00UI")
        data = data[:at] + data[at + 8 + struct.unpack_from("<H", data, at + 6)[0] :]
    assert_array_equal(read(data)[0], BY_RANGE)


@pytest.mark.parametrize("modality", ["DR", "dx", "CR\\DX", "XR", "RX", "X-RAY", "Thorax"])
def test_a_modality_as_sites_write_it(modality: str) -> None:
    assert_array_equal(read(of(Modality=modality))[0], BY_RANGE)


SYNTAXES = [
    uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless,
    uid.JPEG2000Lossless,
]  # fmt: skip


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("absent", ["transfer syntax", "meta information"])
def test_the_transfer_syntax_is_seen_from_the_data_set(syntax: uid.UID, absent: str) -> None:
    data = written(radiograph(RAMP, 12), syntax)
    at = data.index(b"\x02\x00\x10\x00UI")
    end = at + 8 + struct.unpack_from("<H", data, at + 6)[0]
    if absent == "transfer syntax":
        data = data[:at] + data[end:]
    else:
        group = struct.unpack_from("<I", data, 140)[0]
        data = data[:132] + data[144 + group :]
    assert_array_equal(read(data)[0], BY_RANGE)


@pytest.mark.parametrize(
    "said", [*SYNTAXES, uid.JPEGBaseline8Bit, uid.JPEGLSLossless], ids=lambda one: one.keyword
)
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_the_data_set_is_right_where_the_transfer_syntax_is_wrong(syntax: uid.UID, said: uid.UID) -> None:
    data = written(radiograph(RAMP, 12), syntax)
    at = data.index(b"\x02\x00\x10\x00UI") + 6
    end = at + 2 + struct.unpack_from("<H", data, at)[0]
    name = said.encode() + b"\0" * (len(said) % 2)
    assert_array_equal(read(data[:at] + struct.pack("<H", len(name)) + name + data[end:])[0], BY_RANGE)


def test_a_transfer_syntax_that_cannot_be_read_is_named() -> None:
    ds = radiograph(RAMP, 12)
    ds.file_meta.TransferSyntaxUID, ds.PixelData = uid.MPEG2MPML, encapsulate([b"frames"])
    with pytest.raises(BadImage, match="MPEG2"):
        decode(written(ds))


def test_a_jp2_file_around_the_codestream() -> None:
    ds = radiograph(RAMP, 12)
    ds.compress(uid.JPEG2000Lossless)
    codestream = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))

    def box(kind: bytes, content: bytes, wide: bool = False) -> bytes:
        if wide:
            return struct.pack(">I4sQ", 1, kind, len(content) + 16) + content
        return struct.pack(">I4s", len(content) + 8, kind) + content

    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + box(b"jp2h", bytes(30))
    last = struct.pack(">I4s", 0, b"jp2c") + codestream
    for file in (start + box(b"jp2c", codestream), start + box(b"jp2c", codestream, True), start + last):
        ds.PixelData = encapsulate([file])
        assert_array_equal(read(written(ds, uid.JPEG2000Lossless))[0], BY_RANGE)


@pytest.mark.parametrize("count", [1, 7])
def test_fragments_are_joined_whatever_the_offset_table_says(count: int) -> None:
    ds = radiograph(RAMP, 12)
    ds.compress(uid.JPEG2000Lossless)
    frame = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
    size = -(-len(frame) // count) // 2 * 2 + 2
    fragments = [frame[at : at + size] for at in range(0, len(frame), size)]
    table = struct.pack("<3I", 0, 5, 99_999)
    ds.PixelData = (
        b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(one)) + one for one in (table, *fragments))
        + b"\xfe\xff\xdd\xe0\0\0\0\0"
    )
    assert_array_equal(read(written(ds, uid.JPEG2000Lossless))[0], BY_RANGE)


def test_large_elements_before_the_pixels_are_passed_over() -> None:
    for syntax in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian):
        ds = radiograph(RAMP, 12)
        ds.private_block(0x0009, "made here", create=True).add_new(1, "OB", bytes(6_000_000))
        ds.add_new(0x60003000, "OW", bytes(6_000_000))
        icon = radiograph(ramp(8), 8)
        ds.IconImageSequence = Sequence([icon])
        ds["IconImageSequence"].is_undefined_length = True
        assert_array_equal(read(written(ds, syntax))[0], BY_RANGE)


def test_a_picture_with_hardly_any_contrast_has_a_warning() -> None:
    flat = np.full_like(RAMP, 7)
    flat[0, 0] = 9
    picture, warnings = read(written(radiograph(flat, 12, WindowCenter="2048", WindowWidth="4096")))
    assert picture.max() < 32
    assert "hardly any contrast" in warnings
    assert "hardly any contrast" not in read(of())[1]
