"""The directories of a TIFF or of EXIF data (TIFF 6.0, section 2), walked before Pillow reads them."""

from dataclasses import dataclass
from struct import error as CutShort
from struct import pack, unpack_from

from emx_shared.imaging.refusals import BadImage

MAX_TAGS = 2000
"""Of the directories that Pillow reads. Scientific and medical files have a few hundred."""
MAX_VALUES = 2**18
"""Of one tag, of which Pillow makes numbers: the largest are the colour map and the strips' places."""
_MAX_NUMBERS = 2**20
"""Of all tags."""
_MAX_STRIPS = 100_000
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Of a value of each type; 16 to 18 are BigTIFF's."""
_TEXTS = (1, 2, 6, 7)
"""Types that stay bytes."""
_WHOLE = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""Types of whole numbers, as struct names them."""
_STRIPS = (273, 279, 324, 325)
"""StripOffsets, StripByteCounts, TileOffsets and TileByteCounts."""
_DIRECTORIES = (34665, 34853, 40965)
"""Tags of EXIF's, GPS' and Interoperability's directories, which Pillow follows."""


_OFFSETS, _COUNTS = (273, 324), (279, 325)
_SUBFILE, _OLD_SUBFILE = 254, 255
_REDUCED_OR_MASK, _OLD_REDUCED = 0b101, 2
_MAX_DIRECTORIES = 100


def check(data: bytes, what: str = "TIFF") -> list[int]:
    """Refuse directories that cost more than their bytes: too many tags, or tags that share their values.

    Args:
        data: of a TIFF file, or EXIF data from their TIFF header on.
        what: has them, for the refusal.

    Returns:
        The numbers of the directories, in their chain, that have a page: neither a thumbnail nor a mask.

    Raises:
        BadImage: if they do.
    """
    layout = _Layout.of(data)
    if layout is None:
        return []
    pages, place, seen = list[int](), layout.first, set[int]()
    tags = size = numbers = 0
    while place and place not in seen and len(seen) < _MAX_DIRECTORIES:
        places = [place]
        for at in places:
            for tag in layout.tags(at):
                tags, size = tags + 1, size + layout.length(tag)
                count = 0 if tag.kind in _TEXTS else tag.count
                numbers += count
                too_many = count > (_MAX_STRIPS if tag.number in _STRIPS else MAX_VALUES) or numbers > _MAX_NUMBERS
                if too_many or tags > MAX_TAGS or size > len(data):
                    raise BadImage(f"The {what} has more tags or values than any radiograph needs.")
                if tag.number in _DIRECTORIES and tag.value not in places:
                    places.append(tag.value)
        if not _is_reduced(layout.numbers(place)):
            pages.append(len(seen))
        seen.add(place)
        place = layout.next(place)
    if place and place not in seen:
        raise BadImage(f"The {what} has more than {_MAX_DIRECTORIES} directories.")
    return pages


def is_complete(data: bytes) -> bool:
    """Return whether all strips or tiles of a TIFF's first directory lie within the file."""
    layout = _Layout.of(data)
    if layout is None:
        return False
    places, lengths = list[int](), list[int]()
    for tag in layout.tags(layout.first):
        if tag.number in _OFFSETS:
            places = layout.values(tag)
        elif tag.number in _COUNTS:
            lengths = layout.values(tag)
    return all(place + length <= len(data) for place, length in zip(places, lengths, strict=False))


def pixels_of(data: bytes) -> str:
    """Return in words how a TIFF's first directory says that its pixels are kept, for a refusal."""
    layout = _Layout.of(data)
    tags = {tag.number: tag for tag in layout.tags(layout.first)} if layout else {}
    if layout is None or not tags.keys() >= {256, 257}:
        return ""
    bits, samples, compression = (
        next(iter(layout.values(tags[number])), 1) if number in tags else 1 for number in (258, 277, 259)
    )
    return f"{samples} × {bits} bits for a pixel, compression {compression}"


def _is_reduced(numbers: dict[int, int]) -> bool:
    return bool(numbers.get(_SUBFILE, 0) & _REDUCED_OR_MASK) or numbers.get(_OLD_SUBFILE) == _OLD_REDUCED


@dataclass(frozen=True, slots=True)
class _Tag:
    """An entry of a directory; its value, or where its values are, is a number as the file has it."""

    number: int
    kind: int
    count: int
    value: int


@dataclass(frozen=True)
class _Layout:
    """How a file writes its directories, and where the first is.

    Attributes:
        data: of the file.
        order: of bytes, as struct names it.
        big: whether it is a BigTIFF.
        first: where the first directory begins.
    """

    data: bytes
    order: str
    big: bool
    first: int

    @classmethod
    def of(cls, data: bytes) -> "_Layout | None":
        """Return the layout that a header tells; None where it is cut short."""
        order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
        try:
            first = unpack_from(f"{order}Q", data, 8)[0] if big else unpack_from(f"{order}I", data, 4)[0]
        except CutShort:
            return None
        return cls(data, order, big, first)

    def tags(self, place: int) -> list[_Tag]:
        """Return the entries of the directory at a place, up to where the data end, and one too many."""
        entry, step = (f"{self.order}HHQQ", 20) if self.big else (f"{self.order}HHII", 12)
        found = list[_Tag]()
        try:
            for number in range(min(self._entries(place), MAX_TAGS + 1)):
                at = place + (8 if self.big else 2) + step * number
                found.append(_Tag(*unpack_from(entry, self.data, at)))
        except (CutShort, OverflowError):  # Pillow says what is wrong
            pass
        return found

    def next(self, place: int) -> int:
        """Return where the next directory is; 0 if there is none."""
        try:
            end = place + (8 + 20 * self._entries(place) if self.big else 2 + 12 * self._entries(place))
            return int(unpack_from(f"{self.order}{'Q' if self.big else 'I'}", self.data, end)[0])
        except (CutShort, OverflowError):
            return 0

    def length(self, tag: _Tag) -> int:
        """Return how many bytes a tag's values take outside its entry."""
        length = tag.count * _BYTES.get(tag.kind, 1)
        return length if length > (8 if self.big else 4) else 0

    def numbers(self, place: int) -> dict[int, int]:
        """Return the value of each tag of a directory that has a single whole number."""
        tags = (tag for tag in self.tags(place) if tag.count == 1 and tag.kind in _WHOLE)
        return {tag.number: self.values(tag)[0] for tag in tags}

    def values(self, tag: _Tag) -> list[int]:
        """Return a tag's whole numbers; none where they lie outside the file, or are of another type."""
        if tag.kind not in _WHOLE:
            return []
        kind = _WHOLE[tag.kind]
        try:
            if self.length(tag):
                return [*unpack_from(f"{self.order}{tag.count}{kind}", self.data, tag.value)]
            packed = pack(f"{self.order}{'Q' if self.big else 'I'}", tag.value)
            return [*unpack_from(f"{self.order}{tag.count}{kind}", packed)]
        except (CutShort, OverflowError):
            return []

    def _entries(self, place: int) -> int:
        return int(unpack_from(f"{self.order}{'Q' if self.big else 'H'}", self.data, place)[0])
