"""The images that were read worst, with true and predicted boxes."""

import math
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from emx_shared.contracts.findings import FINDINGS
from emx_shared.grammar import LocatedFinding, LocBox
from emx_training.evaluate.overlap import pair
from emx_training.evaluate.predictions import Case
from emx_training.phantoms import SITES, SiteName, render
from emx_training.plots.strokes import LineStyle

CASES = 12
"""Images on the sheet, at most."""
_COLUMNS = 4
_PANEL = 3.1
"""Inches along each side of a panel."""

_LINE = 54
"""Characters in a line of a panel's title."""

_SOLID: LineStyle = "-"
_DASHES: LineStyle = (0, (3, 2))


def worst_cases(cases: Sequence[Case]) -> Figure | str:
    """Draw the images with the lowest scores, the worst first.

    Phantoms are drawn again, since a results file has no images. Returns the reason as text if there is nothing to
    draw.
    """
    known = [case for case in cases if case.site in SITES and case.id.isdecimal()]
    if not known:
        return "only phantoms with a site and a seed can be drawn."
    worst = sorted(known, key=lambda case: (agreement(case), -_length(case), int(case.id)))[:CASES]
    columns = min(_COLUMNS, len(worst))
    rows = math.ceil(len(worst) / columns)
    figure = Figure(figsize=(columns * _PANEL, rows * (_PANEL + 0.55) + 0.7), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    captions = [_caption(case) for case in worst]
    for case, caption, axes in zip(worst, captions, panels, strict=False):
        _panel(axes, case)
        # All titles have as many lines, so that the images of a row align.
        above = "\n" * (max(map(len, captions)) - len(caption))
        axes.set_title(above + "\n".join(caption), fontsize=7.5, loc="left", pad=4, linespacing=1.25)
    for axes in panels[len(worst) :]:
        axes.remove()
    figure.suptitle(
        f"The {len(worst)} worst of {len(known)} images (score: mean IoU over all true and reported findings)",
        fontsize=11,
    )
    _legend(figure, worst)
    return figure


def agreement(case: Case) -> float:
    """Return the mean IoU over all findings, 0 to 1; each missed finding and each false alarm adds 0.

    It is 1 if there is no finding and none is reported. Similar to panoptic quality (Kirillov et al., CVPR 2019).
    """
    true, reported = _by_term(case.truth.locations), _by_term(case.reported.locations)
    overlaps = chain.from_iterable(pair(true[term], reported[term]) for term in true.keys() & reported.keys())
    pairs = [one.iou for one in overlaps]
    findings = _length(case) - len(pairs)
    if not findings:
        return 0.0 if case.abstained or not case.parsed else 1.0
    return sum(pairs) / findings


def _legend(figure: Figure, cases: Sequence[Case]) -> None:
    shown = {one.finding for case in cases for one in (*case.truth.locations, *case.reported.locations)}
    keys = [Line2D([], [], color="0.35", linewidth=1.8, linestyle=style) for style in (_SOLID, _DASHES)]
    keys += [Line2D([], [], color=finding.colour, linewidth=5) for finding in FINDINGS if finding in shown]
    names = ["true", "predicted", *(finding.label for finding in FINDINGS if finding in shown)]
    figure.legend(keys, names, loc="outside lower center", ncols=6, frameon=False, fontsize=9)


def _panel(axes: Axes, case: Case) -> None:
    image = render(int(case.id), site=cast(SiteName, case.site)).image
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(0, 1, 1, 0), interpolation="bilinear")
    for located in case.truth.locations:
        _frame(axes, located, _SOLID)
    for located in case.reported.locations:
        _frame(axes, located, _DASHES)
    axes.set_axis_off()


def _caption(case: Case) -> list[str]:
    located = _wrapped("true", case.truth.locations) + _wrapped("reported", case.reported.locations)
    return [f"{case.id}, score {agreement(case):.2f}", *located]


def _frame(axes: Axes, located: LocatedFinding, style: LineStyle) -> None:
    ymin, xmin, ymax, xmax = located.box.fractions()
    edge = [withStroke(linewidth=3.2, foreground="#000000aa")] if style == _SOLID else []
    axes.add_patch(
        Rectangle(
            (xmin, ymin),
            xmax - xmin,
            ymax - ymin,
            fill=False,
            edgecolor=located.finding.colour,
            linewidth=1.7,
            linestyle=style,
            path_effects=edge,
        )
    )


def _wrapped(name: str, located: Sequence[LocatedFinding]) -> list[str]:
    """Return a list of terms, with the side as a letter, in lines that fit a panel."""
    terms = [
        one.finding.label + (f"\N{NO-BREAK SPACE}{one.laterality[0].upper()}" if one.laterality else "")
        for one in located
    ]
    return textwrap.wrap(f"{name}: {', '.join(terms) or 'nothing'}", _LINE, subsequent_indent=" " * 9)


def _length(case: Case) -> int:
    return len(case.truth.locations) + len(case.reported.locations)


def _by_term(located: Sequence[LocatedFinding]) -> dict[str, list[LocBox]]:
    boxes: defaultdict[str, list[LocBox]] = defaultdict(list)
    for one in located:
        boxes[one.term].append(one.box)
    return boxes
