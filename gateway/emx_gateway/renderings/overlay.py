"""A report drawn on its image."""

import io

from PIL import Image, ImageDraw

from emx_gateway.renderings.colour import Rgb, ink_on
from emx_gateway.renderings.layout import Layout, Mark, Plate, font, layout, line_height
from emx_gateway.renderings.placement import Rectangle
from emx_shared.contracts.report import Report

_BLACK: Rgb = (0, 0, 0)
_WHITE: Rgb = (255, 255, 255)


def overlay_png(image: Image.Image, report: Report, longest_side: int | None = None) -> bytes:
    """Render an image with its report drawn on it as a PNG file in RGB.

    Parameters:
        image: the upright original, in whose pixels the report's boxes are.
        longest_side: pixels of the picture's longer side at most; the image's own resolution if None. Raises
            ValueError below 1.
    """
    buffer = io.BytesIO()
    picture = image if longest_side is None else reduced(image, longest_side)
    draw(picture, report).save(buffer, "PNG", compress_level=4 if picture.width * picture.height < 8e6 else 1)
    return buffer.getvalue()


def reduced(image: Image.Image, longest_side: int) -> Image.Image:
    """Return the image with its longer side at most ``longest_side`` pixels; never enlarged."""
    if longest_side < 1:
        raise ValueError(f"A picture needs at least one pixel a side, not {longest_side}.")
    scale = min(1.0, longest_side / max(image.size))
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)


def draw(image: Image.Image, report: Report) -> Image.Image:
    """Draw a labelled, coloured box for each location, and the notice, on an RGB copy of the image.

    ``image`` is the upright original or a smaller or larger copy of it. Lines and letters grow with it. What a
    file may say beside its pixels (comments, EXIF, colour profile) is not kept, as it may name a patient.
    """
    canvas = image.convert("RGB")
    canvas.info = {}
    pen, plan = ImageDraw.Draw(canvas), layout(canvas.size, report)
    for mark in sorted(plan.marks, key=lambda mark: -_area(mark.frame)):
        _frame(pen, plan, mark)
    for mark in plan.marks:
        _leader(pen, plan, mark)
    for mark in plan.marks:
        if mark.label:
            _plate(pen, mark.label, mark.colour, ink_on(mark.colour), plan.halo)
    if plan.notice:
        _plate(pen, plan.notice, _BLACK, _WHITE, 0)
    return canvas


def _area(frame: Rectangle) -> int:
    return (frame[2] - frame[0]) * (frame[3] - frame[1])


def _frame(pen: ImageDraw.ImageDraw, plan: Layout, mark: Mark) -> None:
    _rectangle(pen, mark.frame, outline=_BLACK, width=plan.stroke + 2 * plan.halo)
    _rectangle(pen, _inset(mark.frame, plan.halo), outline=mark.colour, width=plan.stroke)


def _leader(pen: ImageDraw.ImageDraw, plan: Layout, mark: Mark) -> None:
    if mark.leader:
        pen.line(mark.leader, fill=_BLACK, width=plan.stroke + 2 * plan.halo)
        pen.line(mark.leader, fill=mark.colour, width=plan.stroke)


def _plate(pen: ImageDraw.ImageDraw, plate: Plate, ground: Rgb, ink: Rgb, halo: int) -> None:
    _rectangle(pen, plate.area, fill=_BLACK)
    _rectangle(pen, _inset(plate.area, halo), fill=ground)
    for number, line in enumerate(plate.lines):
        at = (plate.area[0] + plate.pad, plate.area[1] + plate.pad + number * line_height(plate.letters))
        pen.text(at, line, fill=ink, font=font(plate.letters))


def _inset(area: Rectangle, by: int) -> Rectangle:
    return area[0] + by, area[1] + by, area[2] - by, area[3] - by


def _rectangle(
    pen: ImageDraw.ImageDraw, area: Rectangle, fill: Rgb | None = None, outline: Rgb | None = None, width: int = 1
) -> None:
    """Draw as Pillow does, but right and bottom are outside, and an area too thin to be drawn is one pixel."""
    left, top, right, bottom = area
    pen.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), fill, outline, width)
