"""DICOM files made by tests."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence

Pixels = npt.NDArray[Any]
ROWS, COLUMNS = 48, 64


def file_of(ds: Dataset) -> bytes:
    """Return the file of a data set, encoded as its transfer syntax says."""
    syntax, buffer = ds.file_meta.TransferSyntaxUID, io.BytesIO()
    pydicom.dcmwrite(
        buffer, ds, enforce_file_format=True,
        implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian,
    )  # fmt: skip
    return buffer.getvalue()


def ramp(bits: int, signed: bool = False) -> Pixels:
    """Return all of the range that so many bits hold."""
    values = np.linspace(0, 2**bits - 1, ROWS * COLUMNS).astype(np.int64).reshape(ROWS, COLUMNS)
    if signed:
        values = values - 2 ** (bits - 1)
    kind = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    return np.asarray(values, dtype=kind)


def radiograph(pixels: Pixels, bits: int, **elements: Any) -> Dataset:
    """Return a data set with the pixels of a radiograph, of a patient who must not be named."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = "1.2.3"
    ds.PatientName, ds.PatientID = "Doe^Jane", "SECRET-77"
    ds.Modality, ds.BodyPartExamined, ds.PhotometricInterpretation = "DX", "CHEST", "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.SamplesPerPixel, ds.BitsAllocated = 1, pixels.itemsize * 8
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(pixels.dtype.kind == "i")
    for name, value in elements.items():
        setattr(ds, name, value)
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OB" if bits <= 8 else "OW"
    return ds


def written(ds: Dataset, syntax: uid.UID | None = None) -> bytes:
    """Return the file of a data set, compressed as a transfer syntax says."""
    syntax = syntax or ds.file_meta.TransferSyntaxUID
    if syntax == uid.ExplicitVRBigEndian and ds.BitsAllocated == 16:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    if syntax.is_compressed and not syntax.is_deflated and ds.file_meta.TransferSyntaxUID != syntax:
        ds.compress(syntax)
    ds.file_meta.TransferSyntaxUID = syntax
    return file_of(ds)


def lut(table: Pixels, first: int, bits: int) -> Sequence:
    """Return the sequence of a modality or VOI look-up table."""
    item = Dataset()
    item.LUTDescriptor, item.LUTExplanation = [len(table) % 2**16, first, bits], "made here"
    item.add_new(0x00283006, "OW", table.astype("<u2").tobytes())
    return Sequence([item])


def lossless_jpeg(pixels: Pixels, precision: int = 12) -> bytes:
    """Return a lossless JPEG (ITU-T T.81 process 14), predicted from the left.

    One table gives each of the 17 categories a code of 5 bits.
    """
    rows, columns = pixels.shape
    frame = b"\xff\xd8\xff\xc3" + bytes(
        [0, 11, precision, *divmod(rows, 256), *divmod(columns, 256), 1, 1, 0x11, 0]
    )
    frame += b"\xff\xc4" + bytes(
        [0, 19 + 17, 0, *(17 if length == 5 else 0 for length in range(1, 17)), *range(17)]
    )
    frame += b"\xff\xda" + bytes([0, 8, 1, 1, 0, 1, 0, 0])
    values, bits = pixels.astype(int), []
    for row in range(rows):
        for column in range(columns):
            above = values[row - 1, 0] if row else 2 ** (precision - 1)
            before = values[row, column - 1] if column else above
            difference = (int(values[row, column] - before) + 2**15) % 2**16 - 2**15
            category = abs(difference).bit_length()
            bits.append(f"{category:05b}")
            if category and category < 16:
                bits.append(f"{difference if difference > 0 else difference + 2**category - 1:0{category}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    coded = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    return frame + coded + b"\xff\xd9"
