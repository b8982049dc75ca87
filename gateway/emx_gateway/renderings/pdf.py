"""A report as a PDF, to print or to file."""

import io

from fpdf import FPDF
from fpdf.enums import Align, XPos, YPos
from fpdf.fonts import FontFace
from PIL import Image

from emx_gateway.renderings.colour import Rgb, rgb
from emx_gateway.renderings.overlay import draw
from emx_gateway.renderings.phrases import (
    NOTICE,
    TITLE,
    about_boxes,
    cautions,
    corners,
    no_locations,
    percent,
    provenance,
    spelled,
)
from emx_shared.contracts.report import Location, Report

LONGEST_SIDE = 1600
"""Pixels of the picture's longer side: 300 to an inch, whatever the original has."""

MARGIN = 15.0  # millimetres, as all lengths here
PICTURE = (180.0, 105.0)
"""The picture's width and height at most."""

_INK: Rgb = (23, 33, 43)
_SOFT: Rgb = (90, 107, 123)
_WARN: Rgb = (138, 75, 0)
_LINE: Rgb = (213, 221, 228)


def report_pdf(image: Image.Image, report: Report, review: str = "") -> bytes:
    """Render a report on A4: cautions, the picture with its boxes, the sections, the table and its provenance.

    ``image`` is the upright original, in whose pixels the report's boxes are. ``review`` is what a reader said of
    the report (``phrases.review``); empty where nobody did. The same report and review give the same bytes: the
    report's time is the creation date. The text can be searched; a character that Windows-1252 lacks becomes its
    likeness or ``?``. The metadata hold nothing of the patient or of the file's name.
    """
    page = _Page(report)
    page.add_page()
    page.cautions()
    page.picture(image)
    page.section("Findings", report.findings)
    page.locations()
    page.section("Impression", report.impression)
    if review:
        page.section("Review", review)
    page.provenance()
    return bytes(page.output())


class _Page(FPDF):
    """The sheets of one report, each with the notice at its foot."""

    def __init__(self, report: Report) -> None:
        super().__init__(unit="mm", format="A4")
        self.report = report
        self.core_fonts_encoding = _ENCODING
        self.set_margins(MARGIN, MARGIN, MARGIN)
        self.set_auto_page_break(True, 20)
        self.set_lang("en")
        self.set_title(TITLE)
        self.set_subject(NOTICE)
        self.set_author("ExplainMyXray")
        self.set_creator("ExplainMyXray")
        self.set_creation_date(report.created_at)

    def header(self) -> None:
        self._style("B", 14)
        self.cell(0, 7, TITLE, new_x=XPos.LEFT, new_y=YPos.TOP)
        self._style("B", 9, _WARN)
        self.cell(0, 7, NOTICE, align=Align.R, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.ln(1)

    def footer(self) -> None:
        self.set_y(-16)
        self._style("", 7.5, _WARN)
        self._lines(3.6, self.report.disclaimer)
        self._style("", 7.5, _SOFT)
        self.cell(0, 3.6, f"Page {self.page_no()} of {{nb}}", align=Align.R)

    def cautions(self) -> None:
        warned = cautions(self.report)
        if not warned and not self.report.warnings:
            return
        sheet, top = self.page, self.get_y()
        self.set_left_margin(MARGIN + 4)
        self._style("B", 11, _WARN)
        self._lines(5.5, ". ".join(warned) or "Note")
        self._style("", 9, _WARN)
        for warning in self.report.warnings:
            self._lines(4.4, warning)
        self.set_left_margin(MARGIN)
        if self.page == sheet:
            with self.local_context(fill_color=_WARN):
                self.rect(MARGIN, top, 1.2, self.get_y() - top, style="F")
        self.ln(2)

    def picture(self, image: Image.Image) -> None:
        scale = LONGEST_SIDE / max(image.size)
        size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
        buffer = io.BytesIO()
        drawn = draw(image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3), self.report)
        drawn.save(buffer, "JPEG", quality=90, subsampling=0)
        wide = min(PICTURE[0], PICTURE[1] * size[0] / size[1])
        high = wide * size[1] / size[0]
        if self.will_page_break(high):
            self.add_page()
        self.image(
            buffer, (self.w - wide) / 2, self.get_y(), wide, high, alt_text="The radiograph with the boxes found"
        )
        self.set_y(self.get_y() + high + 1)

    def section(self, heading: str, text: str) -> None:
        self._heading(heading)
        self._style("", 10.5)
        self._lines(5, text)

    def locations(self) -> None:
        report = self.report
        if not report.locations:
            self.section("Locations", no_locations(report))
            return
        self._heading("Locations")
        self._style("", 9.5)
        self.set_draw_color(*_LINE)
        heads = FontFace(emphasis="", size_pt=8, color=_SOFT)
        with self.table(
            borders_layout="HORIZONTAL_LINES",
            col_widths=(5, 65, 32, 52, 26),
            headings_style=heads,
            line_height=5.2,
            text_align=(Align.L, Align.L, Align.L, Align.L, Align.R),
        ) as table:
            table.row(("", "Finding", "Patient's side", "Box in pixels", "Probability"))
            for place in report.locations:
                row = table.row()
                row.cell("", style=FontFace(fill_color=rgb(place.colour)))
                for cell in _cells(place):
                    row.cell(_cell(cell))
        self._style("", 7.5, _SOFT)
        if self.will_page_break(8):
            self.add_page()
        self._lines(3.6, about_boxes(report))

    def provenance(self) -> None:
        self._heading("Provenance", 40)
        self._style("", 8, _SOFT)
        for term, said in provenance(self.report):
            self._lines(3.7, f"{term}: {said}")

    def _heading(self, heading: str, room: float = 20) -> None:
        """Write a heading, on the next sheet if less than ``room`` millimetres are left here."""
        if self.will_page_break(room):
            self.add_page()
        self.ln(2)
        self._style("B", 8.5, _SOFT)
        self.cell(0, 5, heading.upper(), new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def _lines(self, height: float, text: str) -> None:
        self.multi_cell(0, height, _text(text), align=Align.L, new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def _style(self, emphasis: str, size: float, colour: Rgb = _INK) -> None:
        self.set_font("Helvetica", emphasis, size)
        self.set_text_color(*colour)


_ENCODING = "cp1252"
"""Of the fonts that every PDF reader has."""


def _text(text: str) -> str:
    return "\n".join(spelled(line, _ENCODING) for line in text.splitlines())


def _cell(text: str) -> str:
    """Cut a text to one line that a row has room for: the table can't break a row higher than a sheet."""
    line = spelled(text, _ENCODING)
    return line if len(line) <= 300 else f"{line[:299]}…"


def _cells(place: Location) -> tuple[str, str, str, str]:
    return place.label, place.laterality or "–", corners(place), percent(place) or "–"
