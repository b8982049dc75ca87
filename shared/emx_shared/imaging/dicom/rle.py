"""RLE Lossless (DICOM PS3.5 Annex G). pydicom's own decoder lets a few bytes grow to gigabytes."""

from struct import unpack_from

import numpy as np
import numpy.typing as npt
from PIL import Image

from emx_shared.imaging.refusals import BadImage


def unpack(frame: bytes, rows: int, columns: int) -> npt.NDArray[np.unsignedinteger]:
    """Decode a grayscale frame to (rows, columns) of uint8 or uint16.

    Raises BadImage, or ValueError or struct.error where it is damaged.
    """
    count, *offsets = unpack_from("<16I", frame)
    if count not in (1, 2):
        raise BadImage("The RLE pixels are not of 8 or 16 bits and one component.")
    ends = [*offsets[1:count], len(frame)]
    planes = [
        # Its segments are PackBits; as one long row, since runs may cross the rows of the image
        np.asarray(Image.frombytes("L", (rows * columns, 1), frame[start:end], "packbits", "L"))
        for start, end in zip(offsets, ends, strict=False)
    ]
    big_endian = np.stack(planes, axis=-1).reshape(rows, columns * count)
    return big_endian.view(f">u{count}").astype(f"u{count}")
