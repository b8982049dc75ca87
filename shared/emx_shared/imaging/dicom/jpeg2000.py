"""What memory a JPEG 2000 codestream (ITU-T T.800) makes a decoder allocate, added up before decoding."""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import unpack_from

from emx_shared.imaging.refusals import BadImage

START = b"\xff\x4f\xff\x51"
"""SOC and SIZ, with which a codestream begins."""

MAX_TILES = 1024
MAX_BLOCKS = 2**18
"""Code-blocks, or precincts. Each costs half a kilobyte or more; 50 million pixels have 49,000 of 32×32."""
MAX_PACKETS = 2**22
"""One for each precinct and quality layer."""
_MAX_SEGMENTS = 2**14
"""Marker segments and tile-parts."""

_SOT, _SOD, _COD, _COC = 0xFF90, 0xFF93, 0xFF52, 0xFF53
_SEGMENTS = {_COD, _COC, 0xFF50, 0xFF55, 0xFF57, 0xFF58, 0xFF59, *range(0xFF5C, 0xFF62), 0xFF63, 0xFF64}
"""Those of Parts 1 and 15. Within one that it doesn't know OpenJPEG looks for others; Part 2's cost it much."""


@dataclass(frozen=True)
class _Style:
    """How tiles are cut, by a COD or COC segment (A.6.1, A.6.2). Sizes, across and down, are exponents of 2.

    Attributes:
        precincts: of each resolution level, the lowest first.
    """

    layers: int
    block: tuple[int, int]
    precincts: tuple[tuple[int, int], ...]

    def pieces(self, width: int, height: int) -> tuple[int, int]:
        """Count a tile's precincts and code-blocks, without those that its uneven place adds (B.6, B.7)."""
        precincts = blocks = 0
        for level, precinct in enumerate(self.precincts):
            shift = len(self.precincts) - 1 - level
            precincts += _grid(width, height, precinct, shift)
            bands, halved = (3, 1) if level else (1, 0)
            block = min(self.block[0], precinct[0] - halved), min(self.block[1], precinct[1] - halved)
            blocks += bands * _grid(width, height, block, shift + halved)
        return precincts, blocks


def check_cost(frame: bytes) -> None:
    """Refuse a codestream that costs too much; its size and single component were accepted by ``declared_size``.

    Raises BadImage where a decoder would need far more memory or time than for any radiograph, or struct.error,
    IndexError or ZeroDivisionError where the headers are damaged.
    """
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = unpack_from(">8I", frame, 8)
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    if tiles > MAX_TILES:
        raise BadImage(f"The JPEG 2000 pixels are cut into more than {MAX_TILES} tiles.")
    width, height = min(tile_width, right - left), min(tile_height, bottom - top)
    styles = set(_styles(frame))
    layers = max(style.layers for style in styles)
    for style in styles:  # whichever of them a tile has
        precincts, blocks = style.pieces(width, height)
        if tiles * max(precincts, blocks) > MAX_BLOCKS or tiles * precincts * layers > MAX_PACKETS:
            raise BadImage("The JPEG 2000 pixels are cut into more pieces than any radiograph needs.")


def _grid(width: int, height: int, exponents: tuple[int, int], shift: int) -> int:
    across, down = (max(exponent + shift, 0) for exponent in exponents)
    return -(-width >> across) * -(-height >> down)


def _styles(frame: bytes) -> Iterator[_Style]:
    for marker, at in _segments(frame):
        if marker == _COD:
            yield _style(frame, at + 9, frame[at + 4], unpack_from(">H", frame, at + 6)[0])
        elif marker == _COC:
            yield _style(frame, at + 6, frame[at + 5], 1)


def _style(frame: bytes, at: int, custom_precincts: int, layers: int) -> _Style:
    levels = frame[at]
    if levels > 32:
        raise BadImage("The JPEG 2000 pixels have more than 32 decomposition levels.")
    sizes = [frame[at + 5 + level] if custom_precincts & 1 else 0xFF for level in range(levels + 1)]
    block = frame[at + 1] + 2, frame[at + 2] + 2
    return _Style(layers, block, tuple((size & 15, size >> 4) for size in sizes))


def _segments(frame: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and place of each segment of the main header and the tile-parts' (A.3), except SIZ and SOT."""
    at, end = 4 + unpack_from(">H", frame, 4)[0], 0
    for _ in range(_MAX_SEGMENTS):
        marker, length = unpack_from(">HH", frame, at)
        if marker == _SOT:
            part = unpack_from(">I", frame, at + 6)[0]
            end = at + part if part else len(frame)
        elif marker == _SOD:
            at = max(end, at + 2)
            if frame[at : at + 2] != _SOT.to_bytes(2):
                return
            continue
        elif marker in _SEGMENTS:
            yield marker, at
        else:
            break
        at += 2 + length
    raise BadImage("The JPEG 2000 headers are damaged, too many, or not those that DICOM allows.")
