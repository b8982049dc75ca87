"""A report as one self-contained HTML file: no scripts, no network."""

import base64
import hashlib
import io
from html import escape
from pathlib import Path

from PIL import Image

from emx_gateway.renderings.colour import Rgb, ink_on, rgb
from emx_gateway.renderings.layout import Layout, Mark, font, layout
from emx_gateway.renderings.overlay import reduced
from emx_gateway.renderings.phrases import (
    NOTICE,
    TITLE,
    about_boxes,
    cautions,
    corners,
    name,
    no_locations,
    percent,
    provenance,
)
from emx_shared.contracts.report import Location, Report

LONGEST_SIDE = 1600
"""Pixels of the picture's longer side at most."""

_STYLE = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; img-src data:; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'"
)
"""What the file allows itself; a server that sends a policy of its own must allow as much."""


def report_html(image: Image.Image, report: Report, review: str = "") -> str:
    """Render a report as an HTML5 document with its picture inside, for the screen and for A4 or Letter paper.

    ``image`` is the upright original, in whose pixels the report's boxes are. ``review`` is what a reader said of
    the report (``phrases.review``); empty where nobody did. All of it is escaped: neither a model's nor a reader's
    words can become markup.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{CONTENT_SECURITY_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{TITLE}</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>{TITLE}</h1><p class="notice">{NOTICE}</p></header>
{_cautions(report)}<main>
{_figure(image, report)}
<h2>Findings</h2>
<p class="findings">{escape(report.findings)}</p>
<h2>Locations</h2>
{_locations(report)}
<h2>Impression</h2>
<p class="impression">{escape(report.impression)}</p>
{_review(review)}</main>
<footer>
<p class="notice">{escape(report.disclaimer)}</p>
<h2>Provenance</h2>
<dl>
{"".join(f"<dt>{escape(term)}</dt><dd>{escape(said)}</dd>" for term, said in provenance(report))}
</dl>
</footer>
</body>
</html>
"""


def _cautions(report: Report) -> str:
    warned = cautions(report)
    if not warned and not report.warnings:
        return ""
    heading = ". ".join(warned) or "Note"
    warnings = "".join(f"<p>{escape(warning)}</p>\n" for warning in report.warnings)
    return f'<section class="cautions" role="note"><h2>{heading}</h2>\n{warnings}</section>\n'


def _review(review: str) -> str:
    return f'<h2>Review</h2>\n<p class="review">{escape(review)}</p>\n' if review else ""


def _figure(image: Image.Image, report: Report) -> str:
    picture = reduced(image, LONGEST_SIDE).convert("L" if image.mode == "L" else "RGB")
    picture.info = {}  # a comment in the original may name the patient
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92)
    data = base64.b64encode(buffer.getvalue()).decode()
    shown = f"{len(report.locations)} marked" if report.locations else f"locations: {no_locations(report)}"
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" width="{picture.width}" height="{picture.height}" '
        f'alt="The chest radiograph that was read; {shown}">\n{_drawing(report)}</figure>'
    )


def _drawing(report: Report) -> str:
    """Draw boxes and labels as on any picture of this shape, its longer side 1,000 units."""
    if not report.locations:
        return ""
    scale = 1000 / max(report.image.width, report.image.height)
    size = (max(round(report.image.width * scale), 1), max(round(report.image.height * scale), 1))
    plan = layout(size, report, with_notice=False)
    pairs = list(zip(report.locations, plan.marks, strict=True))
    largest_first = sorted(pairs, key=lambda pair: -_area(pair[1]))
    drawn = [_group(place, _frame(plan, mark)) for place, mark in largest_first]
    drawn += [_group(place, _label(plan, mark)) for place, mark in pairs]  # above every frame and line
    return (
        f'<svg viewBox="0 0 {size[0]} {size[1]}" preserveAspectRatio="none" role="img" '
        f'aria-label="Boxes of the table Locations">\n{"".join(drawn)}</svg>'
    )


def _group(place: Location, shapes: str) -> str:
    title = f"{name(place)} {percent(place)}".strip()
    return f"<g><title>{escape(title)}</title>{shapes}</g>" if shapes else ""


def _area(mark: Mark) -> int:
    left, top, right, bottom = mark.frame
    return (right - left) * (bottom - top)


def _frame(plan: Layout, mark: Mark) -> str:
    dark, colour = f'stroke="#000" stroke-width="{plan.stroke + 2 * plan.halo}"', _hex(mark.colour)
    bright = f'stroke="{colour}" stroke-width="{plan.stroke}"'
    half = (plan.stroke + 2 * plan.halo) / 2
    left, top, right, bottom = mark.frame
    size = f'width="{right - left - 2 * half:g}" height="{bottom - top - 2 * half:g}"'
    frame = f'x="{left + half:g}" y="{top + half:g}" {size} fill="none"'
    drawn = f"<rect {frame} {dark}/><rect {frame} {bright}/>"
    if mark.leader:
        (x1, y1), (x2, y2) = mark.leader
        line = f'x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"'
        drawn += f"<line {line} {dark}/><line {line} {bright}/>"
    return drawn


def _label(plan: Layout, mark: Mark) -> str:
    """Draw a label on its plate, at the width that it was laid out for, whatever font the browser has."""
    if not mark.label:
        return ""
    (left, top, right, bottom), label = mark.label.area, mark.label
    halo, ascent = plan.halo, font(label.letters).getmetrics()[0]
    return (
        f'<rect x="{left + halo / 2}" y="{top + halo / 2}" width="{right - left - halo}" '
        f'height="{bottom - top - halo}" fill="{_hex(mark.colour)}" stroke="#000" stroke-width="{halo}"/>'
        f'<text x="{left + label.pad}" y="{top + label.pad + ascent}" font-size="{label.letters}" '
        f'textLength="{right - left - 2 * label.pad}" lengthAdjust="spacingAndGlyphs" '
        f'fill="{_hex(ink_on(mark.colour))}">{escape(label.lines[0])}</text>'
    )


def _hex(colour: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _locations(report: Report) -> str:
    if not report.locations:
        return f"<p>{no_locations(report)}</p>"
    return f"""<p class="small">{escape(about_boxes(report))}</p>
<div class="wide" role="region" aria-label="Locations" tabindex="0"><table>
<thead><tr><th scope="col">Finding</th><th scope="col">Patient's side</th><th scope="col" class="box">Box</th>
<th scope="col" class="number">Probability</th></tr></thead>
<tbody>
{"".join(map(_row, report.locations))}</tbody>
</table></div>"""


def _row(place: Location) -> str:
    swatch = (
        '<svg class="swatch" viewBox="0 0 1 1" aria-hidden="true">'
        f'<rect width="1" height="1" fill="{_hex(rgb(place.colour))}"/></svg>'
    )
    return (
        f'<tr><th scope="row">{swatch}{escape(place.label)}</th><td>{escape(place.laterality or "–")}</td>'
        f'<td class="box">{escape(corners(place))}</td><td class="number">{percent(place) or "–"}</td></tr>\n'
    )
