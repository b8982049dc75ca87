"""The elements that say how a radiograph's pixels are to be read."""

import io
import logging
import math
import warnings
from collections.abc import Iterator
from typing import Any

import pydicom.config
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from emx_shared.imaging.dicom.data_set import DataSet
from emx_shared.imaging.dicom.elements import Element, ElementFinder
from emx_shared.imaging.refusals import BadImage

# pydicom's warnings quote the values of elements, such as names: none may reach a log
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"pydicom\.|openjpeg|libjpeg")
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_READ = {
    tag_for_keyword(keyword)
    for keyword in (
        "SOPClassUID", "Modality", "BodyPartExamined", "PatientOrientation", "SamplesPerPixel",
        "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
        "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "PixelSpacing", "ImagerPixelSpacing",
        "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "VOILUTSequence", "WindowCenter", "WindowWidth",
        "VOILUTFunction",
    )
}  # fmt: skip
"""The elements that are read; all others, the patient's among them, are passed over."""
_PIXELS = 0x7FE00010
_MAX_LENGTH = 2**20
"""Bytes of one element that is read; the largest are look-up tables of 128 KiB."""
_MAX_ITEMS = 100
"""Of a sequence that is read."""


class Header:
    """The values of the elements that are read. An element that can't be read counts as absent, with a warning.

    Attributes:
        sop_class: of the data set, or else of the file meta information.
        pixels: where the pixels are.
        finder: of the data set.
        warnings: sentences about what was passed over; none quotes a value.
    """

    def __init__(self, data_set: DataSet, further: str | None = None) -> None:
        """Find and read the elements, and a further one by its keyword. Raises BadImage if there are no pixels."""
        self.warnings: list[str] = []
        self._values = Dataset()
        self._wanted = _READ | ({tag_for_keyword(further)} if further else set())
        self._data = data_set.data
        self.finder = ElementFinder.at(data_set.data, data_set.start)
        self.pixels = self._read(data_set.start)
        self.sop_class = self.text("SOPClassUID") or data_set.sop_class

    def _read(self, start: int) -> Element:
        for element in self.finder.elements(start):
            if element.tag == _PIXELS:
                return element
            if element.tag > _PIXELS:
                break
            if element.tag in self._wanted and element.tag not in self._values:
                self._read_element(element)
        raise BadImage("The DICOM file has no pixels, or is cut short before them.")

    def _read_element(self, element: Element) -> None:
        data = self._data[element.start : self.finder.end(element)]
        item = b"\xfe\xff\x00\xe0" if self.finder.little else b"\xff\xfe\xe0\x00"
        if len(data) > _MAX_LENGTH or data.count(item) > _MAX_ITEMS:
            self._pass_over(keyword_for_tag(element.tag))
            return
        try:
            self._values.update(read_dataset(io.BytesIO(data), element.implicit, self.finder.little))
        except Exception:  # pydicom raises whatever comes
            self._pass_over(keyword_for_tag(element.tag))

    def _pass_over(self, keyword: str) -> None:
        self.warnings.append(f"The DICOM element {keyword} can't be read and was passed over.")

    def _found(self, keyword: str) -> list[Any]:
        """Return an element's values, or none if it is absent, empty or can't be read."""
        try:
            value = self._values.get(keyword)
        except Exception:  # as above; the values are decoded only here
            value = self._raw_texts(keyword)
            if not value:
                self._pass_over(keyword)
                del self._values[keyword]
        if value is None or value == "":
            return []
        return list(value) if isinstance(value, (MultiValue, Sequence, list)) else [value]

    def _raw_texts(self, keyword: str) -> list[str]:
        """Return the texts of numbers of which at least one is none."""
        raw = getattr(self._values.get_item(keyword), "value", None)
        return raw.decode("ascii", "replace").split("\\") if isinstance(raw, bytes) else []

    def texts(self, keyword: str) -> list[str]:
        """Return an element's values, in capitals and without padding."""
        return [str(value).strip("\0 ").upper() for value in self._found(keyword)]

    def text(self, keyword: str) -> str:
        """Return an element's first value, in capitals; empty where there is none."""
        return next(iter(self.texts(keyword)), "")

    def numbers(self, keyword: str) -> list[float | None]:
        """Return an element's values; None for each that is not a finite number."""
        return [_number(value) for value in self._found(keyword)]

    def number(self, keyword: str, default: float) -> float:
        """Return an element's first value; the default where it is absent, or no finite number, with a warning."""
        found = self.numbers(keyword)
        if found and found[0] is None:
            self._pass_over(keyword)
        return default if not found or found[0] is None else found[0]

    def whole(self, keyword: str) -> int | None:
        """Return an element's first value as a whole number; None where it is none."""
        found = self.numbers(keyword)
        return None if not found or found[0] is None else int(found[0])

    def required(self, keyword: str) -> int:
        """Return a whole number without which no picture can be made. Raises BadImage."""
        found = self.whole(keyword)
        if found is None:
            raise BadImage(f"The DICOM file has no valid {keyword}.")
        return found

    def items(self, keyword: str) -> Iterator[Dataset]:
        """Yield the items of a sequence."""
        yield from (item for item in self._found(keyword) if isinstance(item, Dataset))


def _number(value: Any) -> float | None:
    try:
        number = float(value.strip("\0 ").replace(",", ".") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
