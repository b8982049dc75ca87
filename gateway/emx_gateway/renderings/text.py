"""A report as plain text."""

from emx_gateway.renderings.phrases import corners, model_line, name, no_locations, percent, written
from emx_shared.contracts.report import Location, Report


def as_text(report: Report, review: str = "") -> str:
    """Render FINDINGS, LOCATIONS (boxes in pixels of the original image), IMPRESSION, notices and model.

    ``review`` is what a reader said of the report (``phrases.review``); empty where nobody did.
    """
    lines = [
        "FINDINGS",
        f"  {report.findings}",
        "",
        "LOCATIONS",
        *(f"  {line}" for line in map(_located, report.locations)),
        *([] if report.locations else [f"  {no_locations(report)}"]),
        "",
        "IMPRESSION",
        f"  {report.impression}",
        "",
        *(["REVIEW", f"  {review}", ""] if review else []),
        *(f"Note: {warning}" for warning in report.warnings),
        f"Model: {model_line(report)}",
        f"Written: {written(report)}",
        report.disclaimer,
    ]
    return "\n".join(lines) + "\n"


def _located(place: Location) -> str:
    sure = percent(place)
    return f"{name(place)}: {corners(place)}{sure and f' ({sure})'}"
