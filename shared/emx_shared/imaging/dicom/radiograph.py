"""DICOM radiographs, by pydicom. Import only when a file is one: pydicom takes a third of a second to load."""

import io
import logging
import math
import warnings
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom.config
from PIL import Image
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels.processing import apply_windowing
from pydicom.pixels.utils import pixel_array

from emx_shared.imaging.dicom import jpeg2000, rle
from emx_shared.imaging.dicom.body_parts import is_elsewhere
from emx_shared.imaging.dicom.codestream import declared_size
from emx_shared.imaging.refusals import BadImage, ImageTooLarge, NotAnImage, check_size

# pydicom's warnings quote the values of elements, such as names: none may reach a log
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"pydicom\.|openjpeg|libjpeg")
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

Values = npt.NDArray[np.floating[Any]]
Spacing = tuple[float, float]

RADIOGRAPHS = {"CR": "computed radiography", "DX": "digital radiography"}
_OTHERS = {
    "AU": "audio", "BI": "biomagnetic imaging", "BMD": "bone densitometry", "CT": "computed tomography",
    "DOC": "a document", "ECG": "electrocardiography", "ES": "endoscopy", "GM": "general microscopy",
    "HC": "hard copy", "IO": "intra-oral radiography", "IVUS": "intravascular ultrasound",
    "KO": "a key object selection", "MG": "mammography", "MR": "magnetic resonance", "NM": "nuclear medicine",
    "OP": "ophthalmic photography", "OPT": "ophthalmic tomography", "OT": "other", "PR": "a presentation state",
    "PT": "positron emission tomography", "PX": "panoramic radiography", "REG": "a registration",
    "RF": "radiofluoroscopy", "RG": "radiographic imaging on film", "RTDOSE": "a radiotherapy dose",
    "RTIMAGE": "a radiotherapy image", "RTPLAN": "a radiotherapy plan", "RTRECORD": "a radiotherapy record",
    "RTSTRUCT": "a radiotherapy structure set", "SC": "secondary capture", "SEG": "a segmentation",
    "SM": "slide microscopy", "SR": "a structured report", "TG": "thermography", "US": "ultrasound",
    "XA": "X-ray angiography", "XC": "external-camera photography",
}  # fmt: skip
"""Defined terms of Modality, PS3.3 C.7.3.1.1.1: those that a refusal can name."""

_NATIVE = {uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian}
_COMPRESSED = {
    uid.RLELossless, uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1,
    uid.JPEGLSLossless, uid.JPEGLSNearLossless, uid.JPEG2000Lossless, uid.JPEG2000,
}  # fmt: skip

_READ = [
    tag_for_keyword(keyword)
    for keyword in (
        "Modality", "BodyPartExamined", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows",
        "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelSpacing",
        "ImagerPixelSpacing", "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "VOILUTSequence",
        "WindowCenter", "WindowWidth", "VOILUTFunction",
    )
]  # fmt: skip
"""The elements that are read; all others, the patient's among them, are passed over."""
_PIXELS = 0x7FE00010
_MAX_HEADER = 4 * 2**20
"""Bytes before the pixels. Elements cost many times their bytes once they are Python objects."""
_MAX_ITEMS = 10_000
"""Of all sequences, and fragments of the pixels."""


def read(data: bytes, max_bytes: int, max_pixels: int) -> tuple[Image.Image, Spacing | None]:
    """Read the radiograph in a DICOM file (PS3.10): mode L, and its pixel spacing.

    Modality CR or DX, one frame of MONOCHROME1 or MONOCHROME2. Modality LUT or rescale (PS3.3 C.11.1), then the
    first VOI LUT or window (C.11.2), or the image's own range where there is neither; MONOCHROME1 is inverted.
    The spacing is in millimetres between rows, then columns. Raises BadImage.
    """
    try:
        body, syntax = _body(data, max_bytes)
        header, pixels_at = _header(body, syntax)
        _check(header, max_pixels)
        pixels = _pixels(header, body, pixels_at, syntax)
        return _shown(pixels, header), _spacing(header)
    except (BadImage, MemoryError):
        raise
    except Exception:  # pydicom and the decoders raise whatever comes
        raise BadImage("The DICOM file is damaged or cut short.") from None


def _body(data: bytes, max_bytes: int) -> tuple[bytes, uid.UID]:
    """Return what follows the file meta information, inflated where need be, and its transfer syntax."""
    stream = io.BytesIO(data[:_MAX_HEADER])
    stream.seek(132)
    meta = read_dataset(
        stream, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, vr, length: tag >> 16 != 2
    )
    syntax = uid.UID(str(meta.get("TransferSyntaxUID", "")))
    body = data[stream.tell() :]
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        body = zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, max_bytes + 1)
        if len(body) > max_bytes:
            raise ImageTooLarge(f"The file has more than the {max_bytes} bytes that are accepted, once unpacked.")
        syntax = uid.ExplicitVRLittleEndian
    return body, syntax


def _header(body: bytes, syntax: uid.UID) -> tuple[Dataset, int]:
    """Return the elements before the pixels, and where in ``body`` the pixels begin."""
    little = syntax != uid.ExplicitVRBigEndian
    if body.count(b"\xfe\xff\x00\xe0" if little else b"\xff\xfe\xe0\x00") > _MAX_ITEMS:
        raise BadImage(f"The DICOM file has more than {_MAX_ITEMS} items in its sequences.")
    stream = io.BytesIO(body[:_MAX_HEADER])
    header = read_dataset(
        stream,
        is_implicit_VR=syntax == uid.ImplicitVRLittleEndian,
        is_little_endian=little,
        stop_when=lambda tag, vr, length: tag >= _PIXELS,
        specific_tags=_READ,  # type: ignore[arg-type]
    )
    return header, stream.tell()


def _check(header: Dataset, max_pixels: int) -> None:
    """Refuse everything that can be refused before a pixel is decoded."""
    modality = str(header.get("Modality") or "").strip().upper()
    if modality not in RADIOGRAPHS:
        named = f"{modality}, {_OTHERS[modality]}" if modality in _OTHERS else "not one that is known"
        raise NotAnImage(f"The file is not a radiograph (CR or DX): its modality is {named}.")
    if is_elsewhere(str(header.get("BodyPartExamined") or "")):
        raise BadImage("The radiograph is not of the chest: it names another body part.")
    if int(header.get("NumberOfFrames") or 1) != 1:
        raise BadImage("The DICOM file has several frames; one image is read.")
    if header.SamplesPerPixel != 1 or header.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise BadImage("The DICOM file is in colour; radiographs are MONOCHROME1 or MONOCHROME2.")
    if header.BitsAllocated not in (8, 16):
        raise BadImage("The DICOM file's pixels are not of 8 or 16 bits.")
    check_size(header.Columns, header.Rows, max_pixels)


def _pixels(header: Dataset, body: bytes, at: int, syntax: uid.UID) -> npt.NDArray[Any]:
    """Return the stored values, (rows, columns), of at most 16 bits. Completes ``header`` with the pixels."""
    if syntax not in _NATIVE | _COMPRESSED:
        raise BadImage("The DICOM file's transfer syntax is not one that can be read here.")
    stream = io.BytesIO(body)
    stream.seek(at)
    found = read_dataset(
        stream,
        is_implicit_VR=syntax == uid.ImplicitVRLittleEndian,
        is_little_endian=syntax != uid.ExplicitVRBigEndian,
        stop_when=lambda tag, vr, length: tag != _PIXELS,
    )
    if not found.get("PixelData"):
        raise BadImage(f"The DICOM file has no pixels, or more than {_MAX_HEADER} bytes before them.")
    header.add(found["PixelData"])
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    if syntax in _COMPRESSED:
        frame = get_frame(found.PixelData, 0, number_of_frames=1)
        if syntax == uid.RLELossless:
            return _of_bits(rle.unpack(frame, header.Rows, header.Columns, header.BitsAllocated // 8), header)
        if declared_size(frame) != (header.Columns, header.Rows, 1):
            raise BadImage("The compressed pixels are not of the size that the DICOM file says.")
        if frame.startswith(jpeg2000.START):
            jpeg2000.check_cost(frame)
    pixels = pixel_array(header)
    if pixels.shape != (header.Rows, header.Columns) or pixels.itemsize > 2:
        raise ValueError("not the pixels that were announced")
    return pixels


def _of_bits(pixels: npt.NDArray[Any], header: Dataset) -> npt.NDArray[Any]:
    """Keep only the bits stored, with their sign (PS3.5 8.1.1)."""
    unused = header.BitsAllocated - header.BitsStored
    signed = pixels.view(f"i{pixels.itemsize}") if header.PixelRepresentation else pixels
    stored: npt.NDArray[Any] = (signed << unused) >> unused
    return stored


_ROWS_AT_A_TIME = 256
"""Of which the wide integers that look up are made; of the whole image they would be its largest copy."""


def _shown(pixels: npt.NDArray[Any], header: Dataset) -> Image.Image:
    """Map stored values to gray. That depends on the value alone, so it is worked out once for each value."""
    low, high = int(pixels.min()), int(pixels.max())
    shown = _of_interest(_of_modality(np.arange(low, high + 1), header), header)
    if not np.isfinite(shown).all():
        raise ValueError("values that are not numbers")
    if header.PhotometricInterpretation == "MONOCHROME1":
        shown = 255 - shown
    table = np.rint(np.clip(shown, 0, 255)).astype(np.uint8)
    gray = np.empty(pixels.shape, np.uint8)
    for top in range(0, len(pixels), _ROWS_AT_A_TIME):
        some = slice(top, top + _ROWS_AT_A_TIME)
        gray[some] = table[pixels[some].astype(np.int32) - low]
    return Image.fromarray(gray)


def _of_modality(stored: npt.NDArray[np.int64], header: Dataset) -> Values:
    """Apply the Modality LUT or the rescale (PS3.3 C.11.1)."""
    if header.get("ModalityLUTSequence"):
        return _looked_up(stored.astype(np.float64), header.ModalityLUTSequence[0])[0]
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    return stored * float(1 if slope is None else slope) + float(intercept or 0)


def _of_interest(values: Values, header: Dataset) -> Values:
    """Apply VOI LUT or window (PS3.3 C.11.2), to 0 to 255; the values' own range where there is neither."""
    if header.get("VOILUTSequence"):
        found, top = _looked_up(values, header.VOILUTSequence[0])
        return found * (255 / top)
    window = _window(header)
    if window:
        shown: Values = apply_windowing(values, window)
        return shown
    low = values.min()
    stretched: Values = (values - low) * (255 / ((values.max() - low) or 1))
    return stretched


def _window(header: Dataset) -> Dataset | None:
    """Return the first window, for a display of 8 bits; None where there is none, or it has no width."""
    center, width = (np.atleast_1d(header.get(name) or []) for name in ("WindowCenter", "WindowWidth"))
    function = str(header.get("VOILUTFunction") or "LINEAR").upper()
    least = 1 if function == "LINEAR" else 1e-9
    if not len(center) or not len(width) or not float(width[0]) >= least:
        return None
    window = Dataset()
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 8, 0
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = float(center[0]), float(width[0]), function
    return window


def _looked_up(values: Values, item: Dataset) -> tuple[Values, int]:
    """Look values up in a Modality or VOI LUT; also return the largest value that its entries can have.

    Here rather than pydicom's, which has 8-bit tables of more than 256 entries wrong.
    """
    first, bits = int(item.LUTDescriptor[1]), int(item.LUTDescriptor[2])
    data = item.LUTData
    if isinstance(data, bytes):
        wide = len(data) >= 2 * (item.LUTDescriptor[0] or 2**16)
        order = ">" if not item.original_encoding[1] else "<"
        data = np.frombuffer(data, f"{order}u2" if wide else "u1")
    table = np.atleast_1d(data).astype(np.float64)
    return table[np.clip(values - first, 0, len(table) - 1).astype(np.int64)], 2**bits - 1


def _spacing(header: Dataset) -> Spacing | None:
    """Return PixelSpacing (PS3.3 10.7.1.3), else ImagerPixelSpacing, which is that at the detector."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            row, column = (float(value) for value in header.get(keyword))
        except (TypeError, ValueError):
            continue
        if all(0 < value < math.inf for value in (row, column)):
            return row, column
    return None
