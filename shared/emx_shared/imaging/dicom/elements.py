"""Finds the elements of a data set (DICOM PS3.5, 7), in whatever encoding they are, without decoding them.

A crafted file can have millions of them, and pydicom makes several objects of each. What is found here is a few
numbers, up to a bound; pydicom then decodes the handful of elements that a radiograph needs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import error as CutShort
from struct import unpack_from

from emx_shared.imaging.refusals import BadImage

MAX_ELEMENTS = 100_000
"""Of a file, those within sequences and their items included. Radiographs have a few hundred."""
_MAX_DEPTH = 50
"""Sequences within sequences."""
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
"""Value representations with a length of 32 bits in explicit VR (PS3.5, 7.1.2)."""
_SHORT = {
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
    b"ST", b"TM", b"UI", b"UL", b"US",
}  # fmt: skip


@dataclass(frozen=True)
class Element:
    """Where an element is.

    Attributes:
        tag: group and element number.
        start: of the element.
        value: of its value.
        length: of the value in bytes; None where it is undefined, and ends with a delimiter.
        implicit: whether the element has no value representation of its own.
    """

    tag: int
    start: int
    value: int
    length: int | None
    implicit: bool


class ElementFinder:
    """Finds elements in bytes, and counts all that it passes.

    Attributes:
        little: whether numbers are in little-endian order.
    """

    def __init__(self, data: bytes, little: bool) -> None:
        self._data, self.little = data, little
        self._tag, self._long, self._short = ("<HH", "<I", "<H") if little else (">HH", ">I", ">H")
        self._left = MAX_ELEMENTS

    @classmethod
    def at(cls, data: bytes, at: int) -> "ElementFinder":
        """Return a finder for the data set that begins at ``at``, whatever its header says of its byte order.

        The first group's number is small: it tells the order.
        """
        return cls(data, data[at + 1 : at + 2] <= data[at : at + 1])

    def elements(self, at: int) -> Iterator[Element]:
        """Yield the elements of the data set that begins at ``at``, not those within sequences.

        Ends with the data, or with an element whose value goes beyond them. Raises BadImage.
        """
        explicit = self._is_explicit(at)
        try:
            while at < len(self._data):
                element = self._element(at, explicit)
                yield element
                at = self.end(element)
        except CutShort:
            return

    def end(self, element: Element) -> int:
        """Return where an element ends. Raises BadImage, or struct.error where the data end before."""
        if element.length is None:
            return self._sequence_end(element.value, 0)
        return element.value + element.length

    def items(self, at: int) -> Iterator[tuple[int, int]]:
        """Yield start and end of each item's value, up to the sequence's delimiter or the end of the data.

        For fragments of pixels (PS3.5, A.4), whose length is always defined. The last may end beyond the data.
        """
        while at + 8 <= len(self._data):
            tag, length = self._item(at)
            if tag != _ITEM:
                return
            yield at + 8, at + 8 + length
            at += 8 + length

    def _is_explicit(self, at: int) -> bool:
        return self._data[at + 4 : at + 6] in _LONG | _SHORT

    def _element(self, at: int, explicit: bool) -> Element:
        self._count()
        group, number = unpack_from(self._tag, self._data, at)
        tag, vr, implicit = group << 16 | number, self._data[at + 4 : at + 6], False
        if not explicit or group == 0xFFFE or not vr.isalpha():  # the last in a data set that mixes both
            length, value, implicit = unpack_from(self._long, self._data, at + 4)[0], at + 8, True
        elif vr in _SHORT:
            length, value = unpack_from(self._short, self._data, at + 6)[0], at + 8
        else:
            length, value = unpack_from(self._long, self._data, at + 8)[0], at + 12
        return Element(tag, at, value, None if length == _UNDEFINED else length, implicit)

    def _item(self, at: int) -> tuple[int, int]:
        self._count()
        group, number = unpack_from(self._tag, self._data, at)
        return group << 16 | number, unpack_from(self._long, self._data, at + 4)[0]

    def _sequence_end(self, at: int, depth: int) -> int:
        if depth > _MAX_DEPTH:
            raise BadImage(f"The DICOM file has more than {_MAX_DEPTH} sequences within each other.")
        while True:
            tag, length = self._item(at)
            at += 8
            if tag == _SEQUENCE_END:
                return at
            if tag != _ITEM:
                raise BadImage("The DICOM file is damaged: a sequence has something else than items.")
            at = self._item_end(at, depth) if length == _UNDEFINED else at + length

    def _item_end(self, at: int, depth: int) -> int:
        explicit = self._is_explicit(at)
        while True:
            element = self._element(at, explicit)
            if element.tag == _ITEM_END:
                return element.value
            if element.length is None:
                at = self._sequence_end(element.value, depth + 1)
            else:
                at = element.value + element.length

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise BadImage(f"The DICOM file has more than {MAX_ELEMENTS} elements; radiographs have hundreds.")
