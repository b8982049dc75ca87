"""Precision–recall curves at IoU 0.5, a panel for each finding."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from emx_shared.contracts.findings import FINDINGS, TERMS, Finding
from emx_training.evaluate.average_precision import curve
from emx_training.evaluate.figures import true_boxes
from emx_training.evaluate.tally import Tally
from emx_training.plots.strokes import LineStyle

_COLUMNS = 4
_PANEL = 2.9
"""Inches along each side of a panel."""

_STROKES: dict[str, LineStyle] = {"": "-", "right": "-", "left": (0, (4, 1.6))}


def precision_recall(tallies: Sequence[Tally]) -> Figure | str:
    """Draw the curves of ``average_precision.py``, or return the reason as text if there is nothing to draw."""
    held = {term for term in TERMS if true_boxes(tallies, term).any()}
    shown = [finding for finding in FINDINGS if held & set(finding.terms())]
    if not shown:
        return "no truth has any findings."
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(columns * _PANEL, rows * (_PANEL + 0.35) + 0.7), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for finding, axes in zip(shown, panels, strict=False):
        _panel(axes, finding, tallies, held)
    for axes in panels[len(shown) :]:
        axes.remove()
    figure.suptitle("Precision and recall of located findings (side right, IoU ≥ 0.5)", fontsize=11)
    keys = [Line2D([], [], color="0.3", linewidth=2, linestyle=_STROKES[side]) for side in ("right", "left")]
    figure.legend(
        keys, ["right, or no side", "left"], loc="outside lower center", ncols=2, frameon=False, fontsize=9
    )
    return figure


def _panel(axes: Axes, finding: Finding, tallies: Sequence[Tally], held: set[str]) -> None:
    once = np.ones((1, len(tallies)))
    areas = []
    for term in finding.terms():
        if term not in held:
            continue
        side = term.removeprefix(finding.label).strip()
        truths = true_boxes(tallies, term)
        line = curve([one.detections.get(term, []) for one in tallies], truths, once)
        recall, precision = line.recall[0], line.interpolated[0]
        axes.plot(
            [0, *recall],
            [*precision[:1], *precision] if len(precision) else [0],
            drawstyle="steps-pre",
            color=finding.colour,
            linestyle=_STROKES[side],
            linewidth=2,
            path_effects=[withStroke(linewidth=3.2, foreground="0.35")],
        )
        areas.append(f"{f'{side} ' if side else ''}AP {line.area[0]:.2f} (n = {truths.sum():.0f})")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.03), aspect="equal")
    axes.set_xlabel("recall", fontsize=8)
    axes.set_ylabel("precision", fontsize=8)
    axes.set_title(f"{finding.label}\n{', '.join(areas)}", fontsize=8)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7)
