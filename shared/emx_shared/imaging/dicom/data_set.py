"""The file meta information (DICOM PS3.10, 7.1), and where the data set is that follows it."""

import zlib
from dataclasses import dataclass

from pydicom import uid

from emx_shared.imaging.dicom.elements import ElementFinder
from emx_shared.imaging.refusals import BadImage, ImageTooLarge

_START = 132
_TRANSFER_SYNTAX, _SOP_CLASS = 0x00020010, 0x00020002
READABLE = {
    uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian, uid.RLELossless, uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit,
    uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEGLSNearLossless, uid.JPEG2000Lossless,
    uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K,
}  # fmt: skip
"""Transfer syntaxes. The rest is seen from the data set's own bytes: headers may say it wrongly or not at all."""


@dataclass(frozen=True)
class DataSet:
    """The bytes of a data set.

    Attributes:
        data: has it, from ``start`` on.
        sop_class: of the file meta information; empty where it says none.
    """

    data: bytes
    start: int
    sop_class: str


def find_data_set(file: bytes, max_bytes: int) -> DataSet:
    """Find the data set of a file, inflated where need be. Raises BadImage."""
    meta: dict[int, str] = {}
    finder, start = ElementFinder(file, little=True), _START
    for element in finder.elements(_START):
        start = element.start
        if element.tag >> 16 != 2 or element.length is None:
            break
        start = element.value + element.length
        if element.tag in (_TRANSFER_SYNTAX, _SOP_CLASS):
            meta[element.tag] = file[element.value : start].decode("ascii", "replace").strip("\0 ")
    syntax = uid.UID(meta.get(_TRANSFER_SYNTAX, ""))
    if syntax and syntax not in READABLE:
        named = f" ({syntax.name})" if syntax.is_transfer_syntax else ""
        raise BadImage(f"The DICOM file's transfer syntax{named} is not one that can be read here.")
    if syntax != uid.DeflatedExplicitVRLittleEndian:
        return DataSet(file, start, meta.get(_SOP_CLASS, ""))
    return DataSet(_inflated(file[start:], max_bytes), 0, meta.get(_SOP_CLASS, ""))


def _inflated(data: bytes, max_bytes: int) -> bytes:
    try:
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, max_bytes + 1)
    except zlib.error:
        raise BadImage("The DICOM file's deflated data set is damaged.") from None
    if len(inflated) > max_bytes:
        raise ImageTooLarge(f"The file has more than the {max_bytes} bytes that are accepted, once unpacked.")
    return inflated
