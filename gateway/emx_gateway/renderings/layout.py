"""Where boxes, labels and the notice of a report go on a picture: numbers only, for all renderings."""

import math
from dataclasses import dataclass
from functools import cache

from PIL import ImageFont

from emx_gateway.renderings.colour import Rgb, rgb
from emx_gateway.renderings.phrases import NOTICE, cautions, short_name, spelled
from emx_gateway.renderings.placement import Point, Rectangle, leader, overlap, place
from emx_shared.contracts.report import Box, Report

SMALLEST = 7
"""Pixels of the smallest letters; text that is still too wide is cut short."""

NESTED = 3
"""How many boxes that coincide are drawn around each other; more would say too much of how large they are."""


@dataclass(frozen=True)
class Plate:
    """Text on a plain ground: lines of ``letters`` pixels each, ``pad`` inside ``area``."""

    area: Rectangle
    lines: tuple[str, ...]
    letters: int
    pad: int


@dataclass(frozen=True)
class Mark:
    """One location: the frame drawn around its box, its label, and the line between them where they don't touch.

    On a tiny picture there is no label where it would hide most of it or could only lie on another.
    """

    frame: Rectangle
    colour: Rgb
    label: Plate | None
    leader: tuple[Point, Point] | None


@dataclass(frozen=True)
class Layout:
    """All that is drawn on a picture of ``size``, in its pixels.

    Frames and leaders are lines of ``stroke`` pixels with ``halo`` dark pixels on either side, both within the
    frame's rectangle, so that a box's inside stays free but at the picture's edge.
    """

    size: tuple[int, int]
    stroke: int
    halo: int
    marks: tuple[Mark, ...]
    notice: Plate | None


def layout(size: tuple[int, int], report: Report, with_notice: bool = True) -> Layout:
    """Lay a report out on a picture of ``size`` (width, height), whatever the resolution of its image."""
    scale = math.sqrt(size[0] * size[1])
    stroke, halo, letters = max(2, round(scale / 250)), max(1, round(scale / 800)), max(11, round(scale / 42))
    frames = _frames(size, report, stroke + 2 * halo)
    pad = max(2, letters // 5) + halo
    smaller = letters if report.abstained else max(9, round(letters * 0.75))  # there is nothing else to see then
    notice = _notice(size, report, smaller, pad, frames) if with_notice else None
    taken = [notice.area] if notice else []
    marks = []
    for location, frame in zip(report.locations, frames, strict=True):
        label = _label(size, spelled(short_name(location), "ascii"), letters, pad, frame, taken, frames)
        if label:
            taken.append(label.area)
        marks.append(Mark(frame, rgb(location.colour), label, leader(label.area, frame) if label else None))
    return Layout(size, stroke, halo, tuple(marks), notice)


@cache
def font(letters: int) -> ImageFont.FreeTypeFont:
    """Load Pillow's own font, which has all of ASCII and the ellipsis but neither accents nor dashes."""
    made = ImageFont.load_default(size=letters)
    assert isinstance(made, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return made


def line_height(letters: int) -> int:
    """Return the pixels from one line's top to the next."""
    return sum(font(letters).getmetrics())


def _frames(size: tuple[int, int], report: Report, border: int) -> list[Rectangle]:
    """Place a frame around each box, within the picture; each encloses the one before where boxes coincide."""
    frames: list[Rectangle] = []
    for location in report.locations:
        box = _scaled(location.box, size, report)
        rings = [_outset(box, border * ring, size) for ring in range(1, NESTED + 1)]
        frames.append(next((ring for ring in rings if ring not in frames), rings[-1]))
    return frames


def _scaled(box: Box, size: tuple[int, int], report: Report) -> Rectangle:
    """Scale a box to whole pixels of the picture, on it and at least one pixel wide and high."""
    x, y = size[0] / report.image.width, size[1] / report.image.height
    left = min(max(math.floor(box.xmin * x), 0), size[0] - 1)
    top = min(max(math.floor(box.ymin * y), 0), size[1] - 1)
    right, bottom = min(max(math.ceil(box.xmax * x), left + 1), size[0]), math.ceil(box.ymax * y)
    return left, top, right, min(max(bottom, top + 1), size[1])


def _outset(box: Rectangle, by: int, size: tuple[int, int]) -> Rectangle:
    left, top, right, bottom = box
    return max(left - by, 0), max(top - by, 0), min(right + by, size[0]), min(bottom + by, size[1])


def _label(
    size: tuple[int, int],
    text: str,
    letters: int,
    pad: int,
    frame: Rectangle,
    taken: list[Rectangle],
    frames: list[Rectangle],
) -> Plate | None:
    text, letters = _fitting(text, letters, size[0] - 2 * pad)
    wide, high = _plate_size((text,), letters, pad, size)
    area = place(size, (wide, high), frame, taken, frames)
    if 4 * wide * high > size[0] * size[1] or any(overlap(area, other) for other in taken):
        return None
    return Plate(area, (text,), letters, pad)


def _fitting(text: str, letters: int, room: int) -> tuple[str, int]:
    """Fit a text into ``room`` pixels with smaller letters, or cut it short; return it with the letters' size."""
    while letters > SMALLEST and font(letters).getlength(text) > room:
        letters -= 1
    if font(letters).getlength(text) > room:
        while text and font(letters).getlength(f"{text}…") > room:
            text = text[:-1]
        text = f"{text}…"
    return text, letters


def _plate_size(lines: tuple[str, ...], letters: int, pad: int, size: tuple[int, int]) -> tuple[int, int]:
    wide = math.ceil(max(font(letters).getlength(line) for line in lines)) + 2 * pad
    return min(wide, size[0]), min(line_height(letters) * len(lines) + 2 * pad, size[1])


def _notice(size: tuple[int, int], report: Report, letters: int, pad: int, frames: list[Rectangle]) -> Plate:
    """Place the notice near the lower left corner, off the boxes if there is room; shorter on a tiny picture."""
    cautious = cautions(report)
    brief = "Not for clinical use"
    least = cautious[0] if report.abstained else brief
    wordings = [". ".join([*cautious, NOTICE]), ". ".join([*cautious[:1], brief]), least]
    for text, fitting in ((text, fitting) for text in wordings for fitting in range(letters, SMALLEST - 1, -1)):
        lines = _wrapped(text, fitting, size[0] - 2 * pad)
        wide, high = _plate_size(lines, fitting, pad, size)
        if high <= size[1] / 4 and all(font(fitting).getlength(line) + 2 * pad <= size[0] for line in lines):
            break
    corner = (0, size[1], 0, size[1])
    return Plate(place(size, (wide, high), corner, [], frames), lines, fitting, pad)


def _wrapped(text: str, letters: int, room: int) -> tuple[str, ...]:
    lines: list[str] = []
    for word in text.split():
        if lines and font(letters).getlength(f"{lines[-1]} {word}") <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return tuple(lines)
