"""DICOM files made by tests."""

import io

import pydicom
from pydicom import Dataset


def file_of(ds: Dataset) -> bytes:
    """Return the file of a data set, encoded as its transfer syntax says."""
    syntax, buffer = ds.file_meta.TransferSyntaxUID, io.BytesIO()
    pydicom.dcmwrite(
        buffer, ds, enforce_file_format=True,
        implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian,
    )  # fmt: skip
    return buffer.getvalue()
