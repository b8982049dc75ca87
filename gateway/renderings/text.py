"""A report as plain text."""

from shared.report import Report


def as_text(report: Report) -> str:
    """FINDINGS, LOCATIONS (boxes in pixels of the original image) and IMPRESSION, with the notices."""
    located = [
        f"  {place.label}{f', {place.laterality}' if place.laterality else ''}: "
        f"x {place.box.xmin:.0f}–{place.box.xmax:.0f}, y {place.box.ymin:.0f}–{place.box.ymax:.0f}"
        f"{'' if place.probability is None else f' ({100 * place.probability:.0f} %)'}"
        for place in report.locations
    ]
    lines = [
        "FINDINGS",
        f"  {report.findings}",
        "",
        "LOCATIONS",
        *(located or ["  not assessed" if report.abstained else "  none"]),
        "",
        "IMPRESSION",
        f"  {report.impression}",
        "",
        *(f"Note: {warning}" for warning in report.warnings),
        report.disclaimer,
    ]
    return "\n".join(lines) + "\n"
