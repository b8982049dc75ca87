"""DICOM radiographs. Import only when a file is one: pydicom takes a third of a second to load."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from emx_shared.imaging.dicom.data_set import find_data_set
from emx_shared.imaging.dicom.deep_samples import EXPLANATION, deep_samples
from emx_shared.imaging.dicom.header import Header
from emx_shared.imaging.dicom.histogram import Histogram
from emx_shared.imaging.dicom.modality import check_body_part, check_modality
from emx_shared.imaging.dicom.modality_values import modality_values
from emx_shared.imaging.dicom.samples import read_samples
from emx_shared.imaging.dicom.stored_values import StoredBits
from emx_shared.imaging.dicom.view import view_orientation
from emx_shared.imaging.dicom.voi import choose_voi
from emx_shared.imaging.orientation import is_on_its_side, turn
from emx_shared.imaging.refusals import BadImage, check_size
from emx_shared.imaging.windowing import Windowing

Spacing = tuple[float, float]


@dataclass(frozen=True)
class Radiograph:
    """A radiograph of a DICOM file.

    Attributes:
        image: mode L, or I;16 where it has windows; in the radiologist's view.
        orientation: how the stored pixels were turned for that (EXIF's number).
        spacing: of the image, in millimetres between rows, then columns.
        spacing_from: the element that this is from.
        warnings: what was read otherwise than the file says.
        windowing: how the picture is shown, if it has 16 bits.
    """

    image: Image.Image
    orientation: int
    spacing: Spacing | None
    spacing_from: str | None
    warnings: tuple[str, ...]
    windowing: Windowing | None


def read(data: bytes, max_bytes: int, max_pixels: int, deep: bool = False) -> Radiograph:
    """Read the radiograph in a DICOM file (PS3.10).

    Modality CR or DX, one frame of MONOCHROME1 or MONOCHROME2. Modality LUT or rescale (PS3.3 C.11.1), then the
    first good VOI LUT or window (C.11.2), or the image's own range where there is neither; MONOCHROME1 is
    inverted, padding is black. With ``deep``, values of more than 8 bits keep them all. Raises BadImage.
    """
    try:
        data_set = find_data_set(data, max_bytes)
        header = Header(data_set, EXPLANATION if deep else None)
        _check(header, max_pixels)
        image, windowing = _shown(header, data_set.data, deep)
        orientation = view_orientation(header)
        spacing, origin = _spacing(header, orientation) or (None, None)
        warnings = tuple(header.warnings)
        return Radiograph(turn(image, orientation), orientation, spacing, origin, warnings, windowing)
    except (BadImage, MemoryError):
        raise
    except Exception:  # pydicom and the decoders raise whatever comes
        raise BadImage("The DICOM file is damaged or cut short.") from None


def _check(header: Header, max_pixels: int) -> None:
    """Refuse everything that can be refused before a pixel is decoded."""
    check_modality(header)
    check_body_part(header)
    if (header.whole("NumberOfFrames") or 1) > 1:
        raise BadImage("The DICOM file has several frames; one image is read.")
    photometric = header.text("PhotometricInterpretation")
    if not photometric:
        raise BadImage("The DICOM file has no valid PhotometricInterpretation.")
    if (header.whole("SamplesPerPixel") or 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise BadImage("The DICOM file is in colour; radiographs are MONOCHROME1 or MONOCHROME2.")
    if (header.whole("BitsAllocated") or 16) not in (8, 16):
        raise BadImage("The DICOM file's pixels are not of 8 or 16 bits.")
    check_size(header.required("Columns"), header.required("Rows"), max_pixels)


def _shown(header: Header, data: bytes, deep: bool) -> tuple[Image.Image, Windowing | None]:
    """Map stored values to greys. That depends on the value alone, so it is worked out once for each value."""
    samples = read_samples(header, data)
    bits = StoredBits.of(header, samples)
    stored = bits.values(samples.words)
    histogram = Histogram(stored, _padding(header, bits))
    values = modality_values(histogram, header)
    voi = choose_voi(values, histogram, header)
    inverse = header.text("PhotometricInterpretation") == "MONOCHROME1"
    if deep and bits.count > 8:
        table, windowing = deep_samples(values, histogram, header, voi, inverse)
        return Image.fromarray(histogram.drawn(stored, table)), windowing
    greys = 255 - voi.greys if inverse else voi.greys
    greys[histogram.padding] = 0  # the background, as padding is not for display (PS3.3 C.7.5.1.1.2)
    return Image.fromarray(histogram.drawn(stored, np.rint(np.clip(greys, 0, 255)).astype(np.uint8))), None


def _padding(header: Header, bits: StoredBits) -> np.ndarray:
    """Return the stored values that mean no X-rays: PixelPaddingValue, up to PixelPaddingRangeLimit."""
    first = header.whole("PixelPaddingValue")
    if first is None:
        return np.array([], np.int64)
    last = header.whole("PixelPaddingRangeLimit")
    ends = sorted((first, first if last is None else last))
    if ends[1] - ends[0] >= 2**16:
        ends = [first, first]
    value_bits = StoredBits(bits.count, bits.count - 1, bits.signed)
    return value_bits.values((np.arange(ends[0], ends[1] + 1) & 0xFFFF).astype(np.uint16))


def _spacing(header: Header, orientation: int) -> tuple[Spacing, str] | None:
    """Return PixelSpacing (PS3.3 10.7.1.3), else ImagerPixelSpacing, which is that at the detector; and which."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        match header.numbers(keyword):
            case [float(row), float(column)] if 0 < row < math.inf and 0 < column < math.inf:
                return ((column, row) if is_on_its_side(orientation) else (row, column)), keyword
    return None
