"""One way in for every kind of file."""

import hashlib
from dataclasses import dataclass

from PIL import Image

from emx_shared.contracts.report import ImageFacts
from emx_shared.imaging.contrast import LOW_CONTRAST_WARNING, lacks_contrast
from emx_shared.imaging.raster import picture
from emx_shared.imaging.refusals import BadImage, ImageTooLarge, NotAnImage
from emx_shared.imaging.windowing import Windowing

MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "TIFF": "image/tiff", "DICOM": "application/dicom"}
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF
    b"MM\0+": "TIFF",
}


@dataclass(frozen=True)
class DecodedImage:
    """An upright grayscale image, bright where it is dense, and the facts of its original.

    Width and height are those after it was turned upright: the frame that every box refers to.

    Attributes:
        image: the picture, of 8 bits (mode L); or of 16 (mode I;16) where it has windows.
        facts: of the original.
        warnings: what a reader of the picture has to know of how it was read, as sentences; they quote nothing of
            the file.
        spacing_from: the DICOM element that ``facts.pixel_spacing`` is from.
        windowing: how the picture is shown, if it has 16 bits.
    """

    image: Image.Image
    facts: ImageFacts
    warnings: tuple[str, ...] = ()
    spacing_from: str | None = None
    windowing: Windowing | None = None


def decode(
    data: bytes, max_bytes: int = 64 * 2**20, max_pixels: int = 50_000_000, deep: bool = False
) -> DecodedImage:
    """Decode a whole PNG, JPEG, TIFF or DICOM file. A deflated DICOM file is held to ``max_bytes`` unpacked, too.

    Args:
        data: the file.
        max_bytes: most bytes that are accepted.
        max_pixels: most pixels.
        deep: whether a file of more than 8 bits becomes a picture of 16 bits.

    Raises:
        BadImage: and nothing else: NotAnImage, ImageTooLarge, or itself for broken data.
    """
    if not data:
        raise BadImage("The file is empty.")
    if len(data) > max_bytes:
        raise ImageTooLarge(f"The file has {len(data)} bytes; at most {max_bytes} are accepted.")
    kind = _kind(data)
    if kind == "DICOM":
        from emx_shared.imaging.dicom import radiograph

        read: picture.Picture | radiograph.Radiograph = radiograph.read(data, max_bytes, max_pixels, deep)
    else:
        read = picture.read(data, kind, max_pixels, deep)
    image = read.image
    facts = ImageFacts(
        width=image.width,
        height=image.height,
        media_type=MEDIA_TYPES[kind],
        sha256=hashlib.sha256(data).hexdigest(),
        pixel_spacing=getattr(read, "spacing", None),
        orientation=read.orientation,
    )
    flat = read.windowing is None and lacks_contrast(image)
    warnings = (*read.warnings, *([LOW_CONTRAST_WARNING] if flat else []))
    return DecodedImage(image, facts, warnings, getattr(read, "spacing_from", None), read.windowing)


def media_type(start: bytes) -> str:
    """Tell a file's media type by its first 132 bytes. Raises NotAnImage if it is none that is accepted."""
    return MEDIA_TYPES[_kind(start)]


def _kind(start: bytes) -> str:
    if start[128:132] == b"DICM":  # first, since the preamble before it may be a TIFF header (PS3.10, 7.1)
        return "DICOM"
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return kind
    raise NotAnImage("The file is not a PNG, JPEG, TIFF or DICOM image.")
