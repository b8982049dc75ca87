"""A report drawn on its image."""

import io

from PIL import Image, ImageDraw, ImageFont

from shared.report import Location, Report

_NOTICE = "Research only, not for clinical use"  # ASCII: the built-in font has little else


def draw(image: Image.Image, report: Report) -> Image.Image:
    """The image in RGB at its own resolution with one labelled, coloured box for each location.

    Boxes are in pixels of ``image``, which must be the upright original. Line and letters grow with the image.
    """
    canvas = image.convert("RGB")
    pen = ImageDraw.Draw(canvas)
    scale = max(canvas.size)
    width, font = max(2, scale // 400), ImageFont.load_default(size=max(11, scale // 48))
    taken: list[tuple[float, float, float, float]] = []
    for place in report.locations:
        box = place.box
        corner = (max(box.xmax - 1, box.xmin), max(box.ymax - 1, box.ymin))  # a box may be thinner than a pixel
        pen.rectangle((box.xmin, box.ymin, *corner), outline=place.colour, width=width)
    for place in report.locations:
        taken.append(_label(pen, canvas.size, place, font, taken))
    small = ImageFont.load_default(size=max(10, scale // 64))
    notice = f"{_NOTICE}; demo model" if report.model.demo else _NOTICE
    if report.abstained:
        notice = f"NOT READ. {notice}"
    pen.text(
        (8, canvas.height - 6), notice, fill="white", font=small, anchor="ls", stroke_width=2, stroke_fill="black"
    )
    return canvas


def overlay_png(image: Image.Image, report: Report) -> bytes:
    """``draw`` as a PNG file."""
    buffer = io.BytesIO()
    draw(image, report).save(buffer, "PNG")
    return buffer.getvalue()


Rectangle = tuple[float, float, float, float]


def _label(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    place: Location,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    taken: list[Rectangle],
) -> Rectangle:
    """Put the label outside its box where there is room, and never on another label."""
    text = f"{place.label} ({place.laterality[0].upper()})" if place.laterality else place.label
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    wide, high, pad = right - left, bottom - top, 3
    x = min(max(place.box.xmin, 0), max(size[0] - wide - 2 * pad, 0))
    above, below = place.box.ymin - high - 2 * pad, place.box.ymax
    spots = [above, below, place.box.ymin, *(place.box.ymin + n * (high + 2 * pad) for n in range(1, 8))]
    fitting = [
        spot
        for spot in spots
        if 0 <= spot <= size[1] - high - 2 * pad
        and not any(_overlap((x, spot, x + wide + 2 * pad, spot + high + 2 * pad), other) for other in taken)
    ]
    y = (fitting or [max(place.box.ymin, 0)])[0]
    area = (x, y, x + wide + 2 * pad, y + high + 2 * pad)
    pen.rectangle(area, fill=place.colour)
    pen.text((x + pad - left, y + pad - top), text, fill="black", font=font)
    return area


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
