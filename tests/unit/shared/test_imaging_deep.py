"""The picture of 16 bits: with its window it is the picture of 8 bits, and it keeps what other windows show."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emx_shared.imaging import BadImage, as_png, decode
from emx_shared.imaging.dicom.header import Header
from support.dicom import COLUMNS, ROWS, Pixels, lut, radiograph, ramp, written
from support.paths import FIELD_FILES

FIELD = sorted(
    path.name
    for path in FIELD_FILES.iterdir()
    if path.suffix in (".dcm", ".png", ".tif") and not path.name.endswith(".expected.png")
)
TWELVE = ramp(12)


def deep(data: bytes) -> Image.Image:
    """Return the PNG of 16 bits, as a viewer opens it."""
    return Image.open(io.BytesIO(as_png(decode(data, deep=True))))


def samples_of(data: bytes) -> Pixels:
    return np.asarray(deep(data))


def window_of(picture: Image.Image, text: str = "") -> tuple[float, float]:
    center, width = map(float, (text or picture.info["Window"]).split(" "))
    return center, width


def shown(samples: Pixels, window: tuple[float, float]) -> Pixels:
    """Return greys from 0 to 255, not rounded."""
    center, width = window
    return np.asarray(np.clip((samples.astype(np.float64) - center) / width + 0.5, 0, 1) * 255)


def check(data: bytes) -> Image.Image:
    """Check that a file's picture of 16 bits, seen through its window, is its picture of 8 bits."""
    eight, picture = np.asarray(decode(data).image, dtype=int), deep(data)
    assert picture.mode == "I;16" and picture.info.keys() <= {"Window", "Windows"} | SPACING
    greys = shown(np.asarray(picture), window_of(picture))
    assert eight.shape == greys.shape
    assert np.abs(greys - eight).max() <= 1
    assert np.abs(np.rint(greys) - eight).max() <= 1
    return picture


SPACING = {"PixelSpacing", "PixelSpacingFrom"}


def dicom(pixels: Pixels = TWELVE, bits: int = 12, **elements: Any) -> bytes:
    return written(radiograph(pixels, bits, **elements))


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        found.append((kind, png[at + 8 : at + 8 + length]))
        assert zlib.crc32(png[at + 4 : at + 8 + length]) == struct.unpack_from(">I", png, at + 8 + length)[0]
        at += 12 + length
    return found


@pytest.mark.parametrize("name", FIELD)
def test_the_window_of_a_field_file_gives_its_picture_of_8_bits(name: str) -> None:
    data = (FIELD_FILES / name).read_bytes()
    try:
        eight = decode(data)
    except BadImage as refused:
        with pytest.raises(BadImage, match=str(refused)[:20]):
            decode(data, deep=True)
        return
    if deep(data).mode == "L":
        assert as_png(decode(data, deep=True)) == as_png(eight)
        assert name in EIGHT_BITS
    else:
        check(data)


EIGHT_BITS = {
    "d27b_overlays.dcm", "j05e_8bit.dcm", "j07_base.dcm", "r05_gama.png", "r05d_8bit63.png", "r06_exif6.png",
    "r14_planar.tif", "r15_bps.tif", "r16_apng.png",
}  # fmt: skip


def test_field_files_of_both_depths_were_looked_at() -> None:
    assert len(FIELD) > 70 and set(FIELD) >= EIGHT_BITS


WINDOWS: dict[str, dict[str, Any]] = {
    "none": {},
    "narrow": {"WindowCenter": 2000, "WindowWidth": 300},
    "two values": {"WindowCenter": 2000, "WindowWidth": 2},
    "a fraction": {"WindowCenter": 2000.25, "WindowWidth": 2.5},
    "a threshold": {"WindowCenter": 2000, "WindowWidth": 1},
    "exact": {"WindowCenter": 1500, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"},
    "wider than the values": {"WindowCenter": 2048, "WindowWidth": 9000},
    "beyond the values": {"WindowCenter": 30000, "WindowWidth": 100},
    "partly below the values": {"WindowCenter": 0, "WindowWidth": 1500},
    "partly above the values": {"WindowCenter": 4095, "WindowWidth": 1500},
    "sigmoid": {"WindowCenter": 2000, "WindowWidth": 800, "VOILUTFunction": "SIGMOID"},
    "table": {"VOILUTSequence": lut(np.linspace(0, 1, 4096) ** 2 * 1023, 0, 10)},
}
PADDINGS: dict[str, dict[str, Any]] = {
    "no padding": {},
    "low padding": {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 200},
    "high padding": {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 3900},
}


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("rescale", [(1, 0), (0.1, -300), (-2.5, 7)])
def test_every_way_to_a_picture_has_its_window(
    photometric: str, padding: str, window: str, rescale: tuple[float, float]
) -> None:
    slope, intercept = rescale
    elements = {"PhotometricInterpretation": photometric, **PADDINGS[padding], **WINDOWS[window]}
    if "WindowCenter" in elements:
        elements["WindowCenter"] = round(elements["WindowCenter"] * slope + intercept, 6)
        elements["WindowWidth"] = max(round(elements["WindowWidth"] * abs(slope), 6), 1)
    data = dicom(RescaleSlope=slope, RescaleIntercept=intercept, **elements)
    samples = np.asarray(check(data))
    if PADDINGS[padding]:
        ends = sorted(PADDINGS[padding].values())
        padded = (ends[0] <= TWELVE) & (ends[1] >= TWELVE)
        assert padded.any() and (samples[padded] == 0).all()
    if window not in ("sigmoid", "table") and not PADDINGS[padding]:
        assert len(np.unique(samples)) == len(np.unique(TWELVE))


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_samples_are_a_linear_map_of_the_values_onto_all_16_bits(bits: int, signed: bool) -> None:
    pixels = ramp(bits, signed)
    window = {"WindowCenter": int(pixels.mean()), "WindowWidth": 2 ** (bits - 2)}
    picture = check(dicom(pixels, bits, RescaleSlope=0.5, RescaleIntercept=3, **window))
    samples, values = np.asarray(picture).astype(float), pixels.astype(float)
    assert (samples.min(), samples.max()) == (0, 65535)
    assert np.abs(samples - (values - values.min()) * 65535 / np.ptp(values)).max() <= 0.5
    assert len(np.unique(samples)) == len(np.unique(pixels))


def test_a_viewer_can_window_beyond_the_file_s_window() -> None:
    data = dicom(WindowCenter=1000, WindowWidth=200)
    eight, samples = np.asarray(decode(data).image), samples_of(data)
    cut = TWELVE > 3000
    assert (eight[cut] == 255).all() and len(np.unique(samples[cut])) == len(np.unique(TWELVE[cut]))


def test_a_value_far_from_all_others_is_kept_though_the_window_leaves_it_out() -> None:
    pixels = (TWELVE // 2).astype(np.uint16)
    pixels[0, :8] = 60000
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        check(dicom(pixels, 16, PhotometricInterpretation=photometric))
    picture = check(png(pixels))
    assert np.asarray(picture)[0, 0] > 65000 and len(np.unique(np.asarray(picture))) == len(np.unique(pixels))


def test_padding_is_black_where_the_window_begins_below_the_values() -> None:
    pixels = np.maximum(TWELVE, 1000)
    pixels[:8] = 0
    data = dicom(pixels, PixelPaddingValue=0, WindowCenter=2048, WindowWidth=4096)
    samples = np.asarray(check(data))
    assert (samples[:8] == 0).all() and samples[8:].min() > 10000


@pytest.mark.parametrize("direction", ["L\\F", "R\\F", "R\\H", "L\\H", "F\\L", "F\\R", "H\\R", "H\\L"])
def test_both_depths_are_turned_to_the_radiologist_s_view(direction: str) -> None:
    data = dicom(PatientOrientation=direction.split("\\"), PixelSpacing=[0.2, 0.1])
    picture = check(data)
    on_its_side = direction[0] in "FH"
    assert picture.size == ((ROWS, COLUMNS) if on_its_side else (COLUMNS, ROWS))
    assert picture.info["PixelSpacing"] == ("0.1 0.2" if on_its_side else "0.2 0.1")


@pytest.mark.parametrize("depth", [8, 16])
def test_the_spacing_and_its_element_are_named(depth: int) -> None:
    both = dicom(PixelSpacing=[0.2, 0.1], ImagerPixelSpacing=[0.3, 0.3])
    one, none = dicom(ImagerPixelSpacing=[0.14, 0.143]), dicom()
    found = [Image.open(io.BytesIO(as_png(decode(data, deep=depth == 16)))).info for data in (both, one, none)]
    assert (found[0]["PixelSpacing"], found[0]["PixelSpacingFrom"]) == ("0.2 0.1", "PixelSpacing")
    assert (found[1]["PixelSpacing"], found[1]["PixelSpacingFrom"]) == ("0.14 0.143", "ImagerPixelSpacing")
    assert not found[2].keys() & SPACING
    assert all(("Window" in info) == (depth == 16) for info in found)


def test_a_picture_of_8_bits_has_no_other_bytes_than_before() -> None:
    for data in (dicom(WindowCenter=2000, WindowWidth=300), png(TWELVE), dicom(PixelSpacing=[0.2, 0.1])):
        stream = io.BytesIO()
        decode(data).image.save(stream, "PNG", compress_level=1)
        made = chunks(as_png(decode(data)))
        assert [one for one in made if one[0] != b"tEXt"] == chunks(stream.getvalue())


def test_further_windows_are_named_without_any_text_of_the_file() -> None:
    data = dicom(
        WindowCenter=[9000, 2000, 1000, 3000, 3001, -7000],
        WindowWidth=[10, 2000, 1000, 500, 600, 10],
        WindowCenterWidthExplanation=["NORMAL", "Doe^Jane", "HARDER", "Doe^Jane 1953", "HARDER", "SOFTER"],
    )
    made = as_png(decode(data, deep=True))
    picture = check(data)
    names = dict(each.split("=") for each in picture.info["Windows"].split("; "))
    assert list(names) == ["HARDER", "window 4", "window 5"]  # those after the one shown; the sixth shows nothing
    for number, center, width in (("HARDER", 1000, 1000), ("window 4", 3000, 500)):
        alone = np.asarray(decode(dicom(WindowCenter=center, WindowWidth=width)).image, dtype=int)
        assert np.abs(shown(np.asarray(picture), window_of(picture, names[number])) - alone).max() <= 1
    for text in (b"Doe", b"Jane", b"SECRET", b"1953", b"made here"):
        assert text not in made
    assert {kind for kind, _ in chunks(made)} == {b"IHDR", b"tEXt", b"IDAT", b"IEND"}


def test_windows_are_of_the_samples_that_are_shown_of_an_inverted_image() -> None:
    windows = {
        "WindowCenter": [2000, 1000],
        "WindowWidth": [2000, 1000],
        "PhotometricInterpretation": "MONOCHROME1",
    }
    picture = check(dicom(**windows))
    name, _, window = picture.info["Windows"].partition("=")
    alone = dicom(WindowCenter=1000, WindowWidth=1000, PhotometricInterpretation="MONOCHROME1")
    greys = shown(np.asarray(picture), window_of(picture, window))
    assert name == "window 2"
    assert np.abs(greys - np.asarray(decode(alone).image, dtype=int)).max() <= 1


@pytest.mark.parametrize("way", ["sigmoid", "table"])
def test_a_function_that_is_not_linear_is_given_at_16_bits_and_has_no_further_windows(way: str) -> None:
    elements = {**WINDOWS[way], "WindowCenter": [2000, 1000], "WindowWidth": [800, 500]}
    picture = check(dicom(**elements))
    assert picture.info["Window"] == "32767.5 65535" and "Windows" not in picture.info
    assert len(np.unique(np.asarray(picture))) > 500


def test_the_names_of_windows_are_not_read_for_the_picture_of_8_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = Header.__init__

    def init(self: Header, data_set: Any, further: str | None = None) -> None:
        asked.append(further)
        real(self, data_set, further)

    monkeypatch.setattr(Header, "__init__", init)
    data = dicom()
    decode(data), decode(data, deep=True)
    assert asked == [None, "WindowCenterWidthExplanation"]


def png(pixels: Pixels, kind: str = "PNG", **more: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **more)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [9, 12, 15, 16])
def test_a_file_of_16_bits_keeps_all_its_values(kind: str, bits: int) -> None:
    pixels = (np.arange(256 * 256).reshape(256, 256) % 2**bits).astype(np.uint16)
    samples = np.asarray(check(png(pixels, kind)))
    assert len(np.unique(samples)) == 2**bits
    assert (samples.min(), samples.max()) == (0, 65535)


def test_white_is_zero_is_inverted() -> None:
    upright, inverted = (png(TWELVE, "TIFF", tiffinfo={262: how}) for how in (1, 0))
    assert (np.asarray(check(inverted)) == 65535 - np.asarray(check(upright))).all()


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_turns_both_depths(kind: str, turned: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turned
    check(png(TWELVE, kind, exif=exif))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_of_32_bits_are_mapped_onto_16(kind: type) -> None:
    pixels = TWELVE.astype(kind) * 100 - 7
    samples = np.asarray(check(png(pixels, "TIFF")))
    assert (samples.min(), samples.max()) == (0, 65535)
    lone = (TWELVE % 64).astype(kind)
    lone[0, 0] = 60000
    check(png(lone, "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "DICOM"])
def test_a_file_of_8_bits_has_the_same_picture_at_both_depths(kind: str) -> None:
    data = dicom(ramp(8), 8, WindowCenter=100, WindowWidth=50) if kind == "DICOM" else png(ramp(8), kind)
    assert as_png(decode(data, deep=True)) == as_png(decode(data))


def test_one_value_alone_is_black_at_both_depths() -> None:
    for data in (dicom(np.full_like(TWELVE, 7)), png(np.full_like(TWELVE, 7))):
        assert (np.asarray(check(data)) == 0).all()


def test_the_png_of_noise_fits_into_the_memory_that_is_shared_with_its_decoder() -> None:
    noise = np.random.default_rng(0).integers(0, 2**16, (600, 500), dtype=np.uint16)
    assert len(as_png(decode(png(noise), deep=True))) < 4 * noise.size  # bytes for each pixel: decoder_pool
