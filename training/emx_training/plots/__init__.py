"""Plots of how well reports agree with the truth, as PNG files (matplotlib, extra ``training``)."""

from collections.abc import Sequence
from pathlib import Path

from emx_training.evaluate.predictions import Case
from emx_training.evaluate.tally import Tally
from emx_training.plots.confusion import confusion
from emx_training.plots.curves import precision_recall
from emx_training.plots.reliability import reliability
from emx_training.plots.worst_cases import worst_cases

DPI = 130
"""Pixels per inch."""


def draw_plots(cases: Sequence[Case], tallies: Sequence[Tally], folder: Path) -> list[str]:
    """Draw every plot that these images allow.

    Args:
        cases: the images with their reports.
        tallies: of the same images.
        folder: where to write the plots; it is created if necessary.

    Returns:
        A line for each plot: its file, or why it is left out.

    Raises:
        OSError: if the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {
        "precision_recall": precision_recall(tallies),
        "confusion": confusion(cases),
        "reliability": reliability(cases),
        "worst_cases": worst_cases(cases),
    }
    lines = []
    for name, figure in drawn.items():
        if isinstance(figure, str):
            lines.append(f"{name}.png is left out: {figure}")
        else:
            file = folder / f"{name}.png"
            figure.savefig(file, dpi=DPI, facecolor="white")
            lines.append(f"{name}.png: {file}")
    return lines
