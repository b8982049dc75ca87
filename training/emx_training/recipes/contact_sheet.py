"""Draw a sheet of phantoms: ``python -m emx_training.recipes.contact_sheet docs/phantoms.png``.

The first row shows the training site with the boxes of its findings; then each site has a row.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from emx_training.phantoms import SITES, Phantom, SiteName, held_out_seeds, render

_MARGIN = 6
"""Pixels between two phantoms."""


def contact_sheet(columns: int, size: int) -> Image.Image:
    """Draw phantoms that no model is trained on, each ``size`` pixels along a side."""
    seeds = held_out_seeds(columns * (len(SITES) + 1))
    rows: list[tuple[SiteName, bool]] = [("alpha", True), *((name, False) for name in SITES)]
    step = size + _MARGIN
    sheet = Image.new("RGB", (columns * step - _MARGIN, len(rows) * step - _MARGIN), "white")
    for row, (site, boxed) in enumerate(rows):
        for column in range(columns):
            phantom = render(seeds[row * columns + column], size, site)
            sheet.paste(_picture(phantom, site, boxed), (column * step, row * step))
    return sheet


def _picture(phantom: Phantom, site: str, boxed: bool) -> Image.Image:
    picture = Image.fromarray(phantom.image).convert("RGB")
    draw = ImageDraw.Draw(picture)
    size = picture.width
    font = ImageFont.load_default(size / 22)
    draw.text((size * 0.02, size * 0.94), site, fill="white", font=font)
    if boxed:
        for one in phantom.findings:
            ymin, xmin, ymax, xmax = (fraction * size for fraction in one.box.fractions())
            draw.rectangle((xmin, ymin, xmax, ymax), outline=one.finding.colour, width=max(1, size // 160))
            draw.text((xmin + 2, max(ymin - size / 18, 0)), one.finding.label, fill=one.finding.colour, font=font)
    return picture


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emx_training.recipes.contact_sheet", description="Draw a sheet of phantoms of every site."
    )
    parser.add_argument("output", type=Path, metavar="PICTURE", help="file to write")
    parser.add_argument("--columns", type=int, default=5, help="phantoms in a row")
    parser.add_argument("--size", type=int, default=300, help="pixels along each side of a phantom")
    options = parser.parse_args(arguments)
    contact_sheet(options.columns, options.size).save(options.output, optimize=True)


if __name__ == "__main__":
    main()
