"""Renderings that show the image: functions that a decoder's process runs, where nothing but bytes comes back."""

from emx_gateway.renderings.html import report_html
from emx_gateway.renderings.overlay import overlay_png
from emx_gateway.renderings.pdf import report_pdf
from emx_shared.contracts.report import Report
from emx_shared.imaging import DecodedImage


def picture_of_report(
    kind: str, report: Report, review: str, longest_side: int | None, decoded: DecodedImage
) -> bytes:
    """Render a report with its image.

    Args:
        kind: ``html``, ``pdf``, or ``png`` for the image with its boxes.
        report: what to show.
        review: what a reader said of it (``phrases.review``), for HTML and PDF; empty where nobody did.
        longest_side: of the PNG, in pixels; None for the image's own.
        decoded: the image.
    """
    if kind == "png":
        return overlay_png(decoded.image, report, longest_side)
    if kind == "pdf":
        return report_pdf(decoded.image, report, review)
    return report_html(decoded.image, report, review).encode()
