"""PNGs and TIFFs of 16 bits in colour or with transparency: all of their bits count."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image, TiffImagePlugin

from emx_shared.imaging import BadImage, decode
from support.memory import PRINT_PEAK

GREY = (np.arange(60 * 80).reshape(60, 80) * 4095 // 4799).astype(np.uint16)
"""12 bits of 16."""
EXPECTED = GREY / 4095 * 255
OPAQUE = np.full_like(GREY, 65_535)
TRANSPARENT = np.where(np.arange(80) < 20, 0, 65_535).astype(np.uint16) * np.ones((60, 1), np.uint16)


def png(*samples: np.ndarray, interlaced: bool = False) -> bytes:
    """A PNG of 16 bits, by hand: Pillow doesn't write those of several samples."""
    rows, columns = samples[0].shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def scanlines(part: np.ndarray) -> bytes:
        now = np.ascontiguousarray(part.astype(">u2")).view(np.uint8).reshape(len(part), -1)
        now = np.diff(now, axis=0, prepend=np.zeros_like(now[:1]))
        return np.insert(now, 0, 2, axis=1).tobytes()  # filter Up

    pixels = np.stack(samples, axis=-1)
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        lines = b"".join(scanlines(pixels[top::down, left::across]) for top, left, down, across in passes)
    else:
        lines = scanlines(pixels)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[len(samples)]
    header = struct.pack(">IIBBBBB", columns, rows, 16, colour, 0, 0, int(interlaced))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )


def tiff(
    *samples: np.ndarray, order: str = "<", planar: bool = False, deflated: bool = False, **tags: Any
) -> bytes:
    """A TIFF of 16 bits in strips of 7 rows, or one for each sample."""
    rows, columns = samples[0].shape
    pixels = np.stack(samples, axis=-1).astype(f"{order}u2")
    strips = (
        [one.astype(f"{order}u2") for one in samples]
        if planar
        else [pixels[at : at + 7] for at in range(0, rows, 7)]
    )
    data = [zlib.compress(strip.tobytes()) if deflated else strip.tobytes() for strip in strips]
    count, at = len(samples), 8
    places = [at := at + (len(data[number - 1]) if number else 0) for number in range(len(data))]
    values: dict[int, tuple[int, list[int]]] = {
        256: (3, [columns]), 257: (3, [rows]), 258: (3, [16] * count), 259: (3, [8 if deflated else 1]),
        262: (3, [2 if count > 2 else 1]), 273: (4, places), 277: (3, [count]), 278: (3, [rows if planar else 7]),
        279: (4, [len(one) for one in data]), 284: (3, [2 if planar else 1]),
        **{int(tag[1:]): (3, value) for tag, value in tags.items()},
    }  # fmt: skip
    end = 8 + sum(map(len, data))
    extra, entries = b"", b""
    start = end + 2 + 12 * len(values) + 4
    for tag, (kind, numbers) in sorted(values.items()):
        body = struct.pack(f"{order}{len(numbers)}{'HI'[kind - 3]}", *numbers)
        if len(body) > 4:
            body, extra = struct.pack(f"{order}I", start + len(extra)), extra + body
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + body.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(f"{order}I", end) + b"".join(data)
    return head + struct.pack(f"{order}H", len(values)) + entries + bytes(4) + extra


def shown(data: bytes) -> np.ndarray:
    return np.asarray(decode(data).image, dtype=int)


@pytest.mark.parametrize("interlaced", [False, True], ids=["plain", "interlaced"])
@pytest.mark.parametrize("samples", [(GREY,), (GREY, OPAQUE), (GREY,) * 3, (GREY, GREY, GREY, OPAQUE)], ids=len)
def test_a_png_of_12_bits_looks_the_same_in_every_kind(samples: tuple[np.ndarray, ...], interlaced: bool) -> None:
    assert_allclose(shown(png(*samples, interlaced=interlaced)), EXPECTED, atol=1)


@pytest.mark.parametrize("deflated", [False, True], ids=["raw", "deflated"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("samples", "tags"),
    [
        ((GREY,) * 3, {}),
        ((GREY, GREY, GREY, OPAQUE), {"t338": [0]}),
        ((GREY, GREY, GREY, OPAQUE), {"t338": [1]}),
        ((GREY, GREY, GREY, OPAQUE), {"t338": [2]}),
        ((GREY, OPAQUE), {}),
        ((GREY, OPAQUE), {"t338": [0]}),
        ((GREY, OPAQUE), {"t338": [1]}),
        ((GREY, OPAQUE), {"t338": [2]}),
    ],
)
def test_a_tiff_of_12_bits_looks_the_same_in_every_kind(
    samples: tuple[np.ndarray, ...], tags: dict[str, Any], order: str, deflated: bool
) -> None:
    assert_allclose(shown(tiff(*samples, order=order, deflated=deflated, **tags)), EXPECTED, atol=1)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_planes_of_12_bits(order: str) -> None:
    assert_allclose(shown(tiff(GREY, GREY, GREY, order=order, planar=True)), EXPECTED, atol=1)


def test_compressed_planes_of_12_bits_are_not_shown_without_a_word() -> None:
    decoded = decode(tiff(GREY, GREY, GREY, planar=True, deflated=True))
    assert "contrast" in " ".join(decoded.warnings)
    with pytest.raises(BadImage, match="apart"):
        decode(tiff(GREY, OPAQUE, planar=True))


@pytest.mark.parametrize("order", ["<", ">"])
def test_colours_of_16_bits_have_the_weights_of_those_of_8(order: str) -> None:
    red, green, blue = GREY, GREY[::-1], GREY[:, ::-1]
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    expected = (luma - luma.min()) / np.ptp(luma) * 255
    assert_allclose(shown(tiff(red, green, blue, order=order)), expected, atol=1)
    assert_allclose(shown(png(red, green, blue)), expected, atol=1)


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_transparent_is_black_and_not_of_the_range(count: int) -> None:
    hidden = np.where(TRANSPARENT, GREY, 60_000).astype(np.uint16)
    visible = GREY[TRANSPARENT > 0].astype(float)
    expected = np.where(TRANSPARENT, (GREY - visible.min()) / np.ptp(visible) * 255, 0)
    for file in (png(*[hidden] * count, TRANSPARENT), tiff(*[hidden] * count, TRANSPARENT, t338=[2])):
        assert_allclose(shown(file), expected, atol=1)


def test_what_is_wholly_transparent_is_black() -> None:
    decoded = decode(png(GREY, np.zeros_like(GREY)))
    assert not np.asarray(decoded.image).any()
    assert "contrast" in " ".join(decoded.warnings)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_deep_colours_are_turned_upright(kind: str) -> None:
    if kind == "TIFF":
        decoded = decode(tiff(GREY, GREY, GREY, t274=[6]))
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        body = exif.tobytes().removeprefix(b"Exif\0\0")
        chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
        whole = png(GREY, GREY, GREY)
        decoded = decode(whole[:-12] + chunk + whole[-12:])  # after the pixels, as ImageMagick writes it
    assert decoded.facts.orientation == 6
    assert_allclose(np.asarray(decoded.image, dtype=int), np.rot90(EXPECTED, 3), atol=1)


def test_tiffs_that_pillow_writes() -> None:
    image, buffer = Image.fromarray((GREY >> 4).astype(np.uint8)).convert("RGB"), io.BytesIO()
    image.save(buffer, "TIFF", tiffinfo={TiffImagePlugin.X_RESOLUTION: 300})
    assert_allclose(shown(buffer.getvalue()), GREY >> 4)


def test_a_large_deep_colour_image_costs_what_its_samples_take(tmp_path: Path) -> None:
    """16 megapixels of RGB are 96 MB, and 64 more where Pillow keeps four bytes of each pixel."""
    (tmp_path / "large").write_bytes(png(*[np.zeros((4000, 4000), np.uint16)] * 3))
    code = (
        "import sys; from pathlib import Path; from emx_shared.imaging import decode\n"
        "decode(Path(sys.argv[1]).read_bytes())\n" + PRINT_PEAK
    )
    command = [sys.executable, "-c", code, str(tmp_path / "large")]
    assert int(subprocess.run(command, capture_output=True, check=True).stdout) < 350
