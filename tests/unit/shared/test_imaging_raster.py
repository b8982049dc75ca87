"""PNG, JPEG and TIFF: pixel values by hand, orientations, and files that announce more than they should."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, ImageOps

from emx_shared.imaging import BadImage, ImageTooLarge, decode
from emx_shared.imaging.raster import grayscale
from support.files import file
from support.memory import PRINT_PEAK

RAMP = np.arange(60 * 80, dtype=np.int64).reshape(60, 80)
GRAY = (RAMP % 256).astype(np.uint8)
ORIENTATION, PHOTOMETRIC = 0x0112, 262


def tiff(pixels: np.ndarray, sample_format: int, photometric: int, order: str = "<") -> bytes:
    """One uncompressed strip, by hand: Pillow can't write all of these."""
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    rows, columns = pixels.shape
    entries = {
        256: columns, 257: rows, 258: pixels.itemsize * 8, 259: 1, 262: photometric, 273: 8, 277: 1, 278: rows,
        279: len(data), 339: sample_format,
    }  # fmt: skip
    mark = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", len(entries))
    for tag, value in entries.items():
        directory += struct.pack(f"{order}HHII", tag, 4, 1, value)
    # 32-bit entries hold BitsPerSample and the like as LONG, which TIFF readers accept
    return mark + struct.pack(f"{order}I", 8 + len(data)) + data + directory + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [1, 0])
@pytest.mark.parametrize(
    ("dtype", "sample_format"), [("u1", 1), ("u2", 1), ("i2", 2), ("u4", 1), ("i4", 2), ("f4", 3)]
)
def test_tiff_of_every_depth(dtype: str, sample_format: int, photometric: int, order: str) -> None:
    if dtype == "u1":
        pixels = GRAY
    elif dtype[0] == "f":
        pixels = (RAMP / 1e4 - 0.1).astype(dtype)
    else:
        pixels = (RAMP * 10 - (20_000 if dtype[0] == "i" else 0)).astype(dtype)
    if dtype == "u4":
        pixels = pixels * 80_000  # beyond what 32 signed bits hold
    values = pixels.astype(float)
    shown = values if dtype == "u1" else np.floor((values - values.min()) * (255 / np.ptp(values)))
    if photometric == 0:
        shown = 255 - shown
    decoded = decode(tiff(pixels, sample_format, photometric, order))
    assert decoded.facts.media_type == "image/tiff"
    assert np.abs(np.asarray(decoded.image, dtype=int) - shown).max() <= (0 if dtype == "u1" else 1)


@pytest.mark.parametrize("compression", [None, "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate"])
@pytest.mark.parametrize("mode", ["1", "L", "I;16", "I", "F", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_tiff_of_every_mode_and_compression(mode: str, compression: str | None) -> None:
    decoded = decode(file(Image.fromarray(GRAY).convert("L").convert(mode), "TIFF", compression=compression))
    assert decoded.image.mode == "L"
    assert decoded.image.size == (80, 60)


def test_a_jpeg_within_a_tiff() -> None:
    smooth = Image.linear_gradient("L")
    shown = np.asarray(decode(file(smooth, "TIFF", compression="jpeg", quality=95)).image, dtype=int)
    assert np.abs(shown - np.asarray(smooth, dtype=int)).max() <= 3


def test_tiff_of_several_pages_is_refused() -> None:
    page = Image.fromarray(GRAY)
    with pytest.raises(BadImage, match="several pages"):
        decode(file(page, "TIFF", save_all=True, append_images=[page]))
    decode(file(page, "TIFF", save_all=True))


def test_tiff_of_other_compressions_is_refused() -> None:
    with pytest.raises(BadImage, match="compressed"):
        decode(file(Image.fromarray(GRAY), "TIFF", compression="zstd"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_kind_is_turned_upright(kind: str, orientation: int) -> None:
    upright = Image.new("L", (80, 60))
    upright.paste(255, (0, 0, 40, 20))
    image = upright.copy()
    # The stored image is what the orientation turns into the upright one
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    if orientation in stored:
        image = image.transpose(stored[orientation])
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    decoded = decode(file(image, kind, exif=exif))
    assert (decoded.facts.width, decoded.facts.height) == (80, 60)
    assert np.abs(np.asarray(decoded.image, dtype=int) - np.asarray(upright, dtype=int)).max() <= 16


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_transparency_is_black(kind: str) -> None:
    image = Image.new("RGBA", (80, 60), (255, 255, 255, 0))
    image.paste((200, 200, 200, 255), (0, 0, 40, 60))
    shown = np.asarray(decode(file(image, kind)).image)
    assert (shown[:, :40] == 200).all()
    assert (shown[:, 40:] == 0).all()


def transparent(mode: str) -> tuple[Image.Image, dict[str, Any]]:
    """Every alpha beside every level, and what makes Pillow write so."""
    alpha = Image.fromarray((RAMP * 7 % 256).astype(np.uint8))
    if mode in ("RGBA", "LA"):
        image = Image.fromarray(GRAY).convert(mode)
        image.putalpha(alpha)
        return image, {}
    image = Image.fromarray(GRAY).convert(mode)
    return image, {"transparency": {"P": bytes(range(255, -1, -1)), "RGB": (9, 9, 9), "L": 9, "1": 255}[mode]}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "1"])
def test_transparency_is_the_same_in_strips(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grayscale, "_STRIP", 80 * 7)
    image, options = transparent(mode)
    data = file(image, "PNG", **options)
    rgba = Image.open(io.BytesIO(data)).convert("RGBA")
    whole = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("L")
    assert_array_equal(np.asarray(decode(data).image), np.asarray(whole))


@pytest.mark.parametrize("pixels", [RAMP.astype(np.uint16), RAMP[::-1] * 1000 - 9, RAMP / 7])
def test_deep_images_are_the_same_in_strips(pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = pixels.astype({"u": np.uint16, "i": np.int32, "f": np.float32}[pixels.dtype.kind])
    data = file(Image.fromarray(deep), "TIFF")
    whole = np.asarray(decode(data).image)
    monkeypatch.setattr(grayscale, "_STRIP", 80 * 7)
    assert_array_equal(np.asarray(decode(data).image), whole)


@pytest.mark.parametrize(("mode", "megabytes"), [("RGBA", 250), ("I;16", 200)])
def test_a_large_image_costs_little_more_than_its_pixels(mode: str, megabytes: int, tmp_path: Path) -> None:
    """25 megapixels are 100 MB of RGBA or 50 of 16 bits, and 25 of grey; the libraries alone take 45."""
    (tmp_path / "large").write_bytes(file(Image.new(mode, (5000, 5000)), "PNG", compress_level=1))
    code = (
        "import sys; from pathlib import Path; from emx_shared.imaging import decode\n"
        "decode(Path(sys.argv[1]).read_bytes())\n" + PRINT_PEAK
    )
    command = [sys.executable, "-c", code, str(tmp_path / "large")]
    assert int(subprocess.run(command, capture_output=True, check=True).stdout) < megabytes


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_palettes_show_their_colours(kind: str) -> None:
    image = Image.fromarray(GRAY)
    palette = ImageOps.invert(image).convert("P")
    palette.putpalette([value for level in range(256) for value in [255 - level] * 3])
    assert_array_equal(np.asarray(decode(file(palette, kind)).image), GRAY)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_become_grey(kind: str) -> None:
    image = Image.linear_gradient("L").convert("RGB").convert("CMYK")
    shown = np.asarray(decode(file(image, kind)).image, dtype=int)
    assert np.abs(shown - np.asarray(Image.linear_gradient("L"), dtype=int)).max() <= 6


def test_a_jpeg_of_several_pictures_is_its_first() -> None:
    first, second = Image.fromarray(GRAY), Image.new("L", (80, 60))
    decoded = decode(file(first, "MPO", save_all=True, append_images=[second]))
    assert decoded.facts.media_type == "image/jpeg"
    assert np.asarray(decoded.image).std() > 10


def test_pixels_that_are_not_numbers_are_refused() -> None:
    pixels = (RAMP / 100).astype(np.float32)
    for value in (np.nan, np.inf, 3e38):
        pixels[5, 5] = value
        with pytest.raises(BadImage, match="not numbers"):
            decode(file(Image.fromarray(pixels), "TIFF"))


def test_sizes_are_refused_before_pixels_are_decoded() -> None:
    pixels = np.zeros((1, 1), np.uint8)
    huge = tiff(pixels, 1, 1).replace(struct.pack("<HHII", 256, 4, 1, 1), struct.pack("<HHII", 256, 4, 1, 30_000))
    huge = huge.replace(struct.pack("<HHII", 257, 4, 1, 1), struct.pack("<HHII", 257, 4, 1, 30_000))
    with pytest.raises(ImageTooLarge, match="30000×30000"):
        decode(huge)


def test_a_tile_larger_than_the_image_is_refused() -> None:
    data = tiff(GRAY, 1, 1)
    data = data.replace(struct.pack("<HHII", 278, 4, 1, 60), struct.pack("<HHII", 322, 4, 1, 65_536))
    data = data.replace(struct.pack("<HHII", 277, 4, 1, 1), struct.pack("<HHII", 323, 4, 1, 65_536))
    with pytest.raises(ImageTooLarge, match="tiles"):
        decode(data)


def test_what_a_png_unpacks_besides_its_pixels_is_bounded() -> None:
    whole = file(Image.fromarray(GRAY), "PNG")
    zeros = zlib.compress(bytes(2**27))
    for kind, body in (
        (b"zTXt", b"a\0\0" + zeros),
        (b"iCCP", b"a\0\0" + zeros),
        (b"iTXt", b"a\0\1\0\0\0" + zeros),
    ):
        chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        with pytest.raises(BadImage):
            decode(whole[:33] + chunk + whole[33:])


def test_a_jpeg_of_countless_scans_is_refused() -> None:
    with pytest.raises(BadImage, match="scans"):
        decode(file(Image.fromarray(GRAY), "JPEG", progressive=True) + b"\xff\xda" * 200)
