"""A judgement as one HTML page that needs nothing else: figures, findings, and the images that were read worst."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from emx_shared.contracts.report import DISCLAIMER
from emx_shared.grammar import LocatedFinding, ReportText
from emx_shared.imaging import decode
from emx_training.evaluate.collection import Judgement
from emx_training.evaluate.collection_scores import CollectionScores, JudgedImage
from emx_training.plots.worst_cases import agreement

CASES = 12
"""Images on the page, at most."""

_SIDE = 512
"""Pixels of the longer side of an image on the page."""

_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .7rem; text-align: left }
tr { border-bottom: 1px solid #8884 } td + td { font-variant-numeric: tabular-nums }
article { display: grid; grid-template-columns: minmax(0, 26rem) 1fr; gap: 1.5rem; margin: 2rem 0 }
svg { width: 100%; height: auto; background: #000 } h3 { margin: 0 } pre { white-space: pre-wrap; font: inherit }
@media (max-width: 50rem) { article { grid-template-columns: 1fr } }
"""


def write_page(judgement: Judgement, file: Path) -> None:
    """Write the page. It contains images and reports: as confidential as these.

    Raises:
        OSError: if the file can't be written.
    """
    file.write_text(page(judgement), encoding="utf-8")


def page(judgement: Judgement) -> str:
    """Return the page's HTML."""
    model, scores = judgement.model, judgement.scores
    worst = sorted(judgement.images, key=lambda one: (_badness(judgement, one), one.true.name))[:CASES]
    patients = "" if scores.patients is None else f" of {scores.patients} patients"
    by = "patients" if scores.patients is not None else "images"
    names = ", ".join(filter(None, (model.name, model.adapter, model.quantisation)))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(model.name)} on {escape(judgement.table)}</title><style>{_STYLE}</style></head><body>
<h1>{escape(model.name)} on {escape(judgement.table)}</h1>
<p>{escape(names)}. {scores.images} images{patients}; intervals of 95 %, by bootstrap over {by}. True findings are
from the table's {escape(judgement.true.labels_from)}. {_left_out(judgement)}</p>
<p><strong>{escape(DISCLAIMER)}</strong></p>
<h2>Figures</h2>{_figures(judgement)}
<h2>Findings</h2>{_findings(scores)}
<h2>Calibration</h2>{_calibration(scores)}
<h2>Not computed</h2><ul>{_absent(judgement)}</ul>
<h2>The {len(worst)} worst of {scores.images} images</h2>
<p>Solid boxes are true, dashed ones predicted.</p>
{"".join(_case(judgement, one) for one in worst)}
</body></html>
"""


def _badness(judgement: Judgement, one: JudgedImage) -> float:
    """Return the agreement of an image's reports, 0 to 1: of boxes where the table has them, else of findings."""
    return agreement(one.case) if judgement.true.has_boxes else one.label_f1


def _left_out(judgement: Judgement) -> str:
    unreadable = f"{len(judgement.unreadable)} images could not be decoded. " if judgement.unreadable else ""
    return escape(unreadable + judgement.true.left_out)


def _figures(judgement: Judgement) -> str:
    others = [one for one in judgement.baselines if one.scores is not None]
    rows = []
    for name, value in judgement.scores.figures.items():
        low, high = judgement.scores.intervals[name]
        beside = [f"{one.scores.figures[name]:.3f}" for one in others if one.scores and name in one.scores.figures]
        rows.append([name, f"{value:.3f} ({low:.3f}–{high:.3f})", *beside])
    return _table(["", "model", *(one.name for one in others)], rows)


def _findings(scores: CollectionScores) -> str:
    rows = [
        [label, str(one.images), *(f"{part:.3f}" for part in (one.text.precision, one.text.recall, one.text.f1)),
         f"{one.locations.f1:.3f}"]
        for label, one in scores.findings.items()
    ]  # fmt: skip
    return _table(["finding", "images", "precision", "recall", "F1 of the text", "F1 of LOCATIONS"], rows)


def _calibration(scores: CollectionScores) -> str:
    if scores.calibration_error is None:
        return f"<p>{escape(scores.absent['calibration_error'])}</p>"
    rows = [[f"{one.probability:.2f}", f"{one.right:.2f}", str(one.forecasts)] for one in scores.calibration]
    error = f"<p>Expected calibration error {scores.calibration_error:.3f}</p>"
    return error + _table(["stated probability", "share that is right", "findings"], rows)


def _absent(judgement: Judgement) -> str:
    missing = [
        *judgement.scores.absent.items(),
        *((one.name, one.absent) for one in judgement.baselines if one.absent),
    ]
    return "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in missing)


def _case(judgement: Judgement, one: JudgedImage) -> str:
    declined = "The model declined to read it." if one.case.abstained else ""
    broken = "" if one.case.parsed else "Its text broke the report grammar."
    return f"""<article><div>{_picture(one)}</div><div>
<h3>{escape(one.true.name)}, {_badness(judgement, one):.2f}</h3>
<p>True findings: {escape(", ".join(sorted(one.true.labels)) or "none")}. Stated: \
{escape(", ".join(sorted(one.in_text)) or "none")}. {declined} {broken}</p>
<h4>True report</h4><pre>{_text(one.true.report, judgement.true.has_boxes)}</pre>
<h4>Predicted report</h4><pre>{_text(one.case.reported, True)}</pre>
</div></article>"""


def _text(report: ReportText, knows_locations: bool) -> str:
    located = ", ".join(one.term for one in report.locations) or "none"
    if not knows_locations:
        located = "not in the table"
    return escape(f"FINDINGS: {report.findings}\nLOCATIONS: {located}\nIMPRESSION: {report.impression}")


def _picture(one: JudgedImage) -> str:
    image = decode(one.true.image.read_bytes()).image.convert("L")
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    data = base64.b64encode(stream.getvalue()).decode()
    width, height = image.size
    boxes = [
        *_boxes(one.true.report.locations, width, height, ""),
        *_boxes(one.case.reported.locations, width, height, ' stroke-dasharray="6 4"'),
    ]
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(one.true.name)}">'
        f'<image href="data:image/png;base64,{data}" width="{width}" height="{height}"/>{"".join(boxes)}</svg>'
    )


def _boxes(located: Sequence[LocatedFinding], width: int, height: int, dashes: str) -> Iterable[str]:
    for one in located:
        ymin, xmin, ymax, xmax = one.box.fractions()
        yield (
            f'<rect x="{xmin * width:.1f}" y="{ymin * height:.1f}" width="{(xmax - xmin) * width:.1f}" '
            f'height="{(ymax - ymin) * height:.1f}" fill="none" stroke="{one.finding.colour}" stroke-width="2"'
            f"{dashes}>"
            f"<title>{escape(one.term)}</title></rect>"
        )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def row(cells: Sequence[str], kind: str) -> str:
        return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"
