import io
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import Image

from emx_shared.imaging import MEDIA_TYPES, BadImage, ImageTooLarge, NotAnImage, as_png, decode, media_type
from support.paths import RADIOGRAPHS

REAL = RADIOGRAPHS


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def bomb(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "1", "I;16"])
def test_every_mode_becomes_grayscale(mode: str) -> None:
    decoded = decode(png(Image.new(mode, (80, 60))))
    assert decoded.image.mode == "L"
    assert (decoded.facts.width, decoded.facts.height) == (80, 60)


def test_boxes_refer_to_the_upright_image() -> None:
    image, buffer = Image.new("L", (80, 60)), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to view
    image.save(buffer, "JPEG", exif=exif)
    assert decode(buffer.getvalue()).image.size == (60, 80)


def test_bad_files_are_refused_with_a_reason() -> None:
    whole = png(Image.effect_noise((256, 256), 50))
    with pytest.raises(BadImage, match="empty"):
        decode(b"")
    with pytest.raises(NotAnImage):
        decode(b"%PDF-1.7 not an image")
    with pytest.raises(BadImage, match="cut short"):
        decode(whole[: len(whole) // 2])
    with pytest.raises(ImageTooLarge, match="20000×20000"):
        decode(bomb(20_000))
    with pytest.raises(ImageTooLarge, match="bytes"):
        decode(whole, max_bytes=100)
    with pytest.raises(BadImage, match="each side"):
        decode(png(Image.new("L", (8, 8))))


def test_a_kind_is_told_by_its_first_bytes() -> None:
    for kind in ("PNG", "JPEG", "TIFF"):
        buffer = io.BytesIO()
        Image.new("L", (80, 60)).save(buffer, kind)
        assert media_type(buffer.getvalue()[:132]) == MEDIA_TYPES[kind]
    assert media_type(bytes(128) + b"DICM") == "application/dicom"
    with pytest.raises(NotAnImage):
        media_type(b"")


def test_what_a_browser_cannot_show_becomes_png() -> None:
    buffer = io.BytesIO()
    Image.effect_noise((80, 60), 50).save(buffer, "TIFF")
    decoded = decode(buffer.getvalue())
    shown = as_png(decoded)
    assert media_type(shown) == "image/png"
    assert decode(shown).image.tobytes() == decoded.image.tobytes()


def test_shared_imaging_loads_pydicom_for_dicom_alone() -> None:
    code = "import sys; from emx_shared.imaging import decode; sys.exit('pydicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not REAL.is_dir(), reason="no real radiographs here")
def test_real_radiographs_are_read() -> None:
    sizes = {path.name: decode(path.read_bytes()).image.size for path in REAL.glob("*.png")}
    assert sizes["00000001_000.png"] == (512, 512)
    assert decode((REAL / "covid-19-pneumonia-58-prior.jpg").read_bytes()).image.size == (2373, 2373)
    dicom = decode((REAL / "rsna.dcm").read_bytes())
    assert dicom.image.size == (1024, 1024)
    assert dicom.facts.media_type == "application/dicom"
    assert dicom.facts.pixel_spacing == (0.168, 0.168)
