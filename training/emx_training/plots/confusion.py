"""Which terms were reported for which true terms."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from matplotlib.figure import Figure

from emx_shared.contracts.findings import TERMS
from emx_shared.grammar import LocatedFinding
from emx_training.evaluate.overlap import intersection_over_union
from emx_training.evaluate.predictions import Case

NONE = "none"
"""As truth: a false alarm. As reported: missed."""

_SAME_PLACE = 0.1
"""IoU from which a wrong term counts as another name for the same finding."""

Likeness = Callable[[LocatedFinding, LocatedFinding], float]
"""Returns how alike a true and a reported finding are; 0 if they can't be paired."""

_CELL = 0.42
"""Inches along each side of a cell."""


def confusion(cases: Sequence[Case]) -> Figure | str:
    """Draw the confusion matrix: a row for each true term, and a column for each reported one.

    The last row and column are for none. Shades are shares of a row. Returns the reason as text if there is
    nothing to draw.
    """
    counts = confusions(cases)
    seen = {term for pair in counts for term in pair}
    terms = [term for term in TERMS if term in seen]
    if not terms:
        return "neither truth nor predictions have any findings."
    names = [*terms, NONE]
    matrix = np.array([[counts[true, reported] for reported in names] for true in names], float)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = len(names) * _CELL
    figure = Figure(figsize=(side + 2.8, side + 2.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(matrix > 0):
        shade = "white" if shares[row, column] > 0.55 else "0.15"
        axes.text(column, row, f"{matrix[row, column]:.0f}", ha="center", va="center", fontsize=8, color=shade)
    axes.axhline(len(terms) - 0.5, color="0.4", linewidth=1)
    axes.axvline(len(terms) - 0.5, color="0.4", linewidth=1)
    axes.set_xticks(range(len(names)), [*terms, "none (missed)"], rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), [*terms, "none (false alarm)"], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_color("0.8")
    axes.set(xlabel="reported", ylabel="true")
    axes.set_title(
        "True and reported findings with their sides\n(numbers are findings, shades shares of a row)", fontsize=10
    )
    return figure


def confusions(cases: Iterable[Case]) -> Counter[tuple[str, str]]:
    """Count pairs of a true and a reported term.

    In each image, findings that are reported with the right term are paired first. The others are paired if their
    boxes overlap (IoU of at least 0.1, the best first), then if they differ only in their sides. The rest is
    missed or a false alarm.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for case in cases:
        true, reported = list(case.truth.locations), list(case.reported.locations)
        for likeness in (_same_term, _overlap, _same_finding):
            _pair_off(true, reported, likeness, counts)
        counts.update((one.term, NONE) for one in true)
        counts.update((NONE, one.term) for one in reported)
    return counts


def _pair_off(
    true: list[LocatedFinding],
    reported: list[LocatedFinding],
    likeness: Likeness,
    counts: Counter[tuple[str, str]],
) -> None:
    """Move pairs from both lists to the counts, the most alike first, until none are alike."""
    while pairs := [(likeness(a, b), i, j) for i, a in enumerate(true) for j, b in enumerate(reported)]:
        alike, i, j = max(pairs)
        if alike <= 0:
            return
        counts[true.pop(i).term, reported.pop(j).term] += 1


def _same_term(one: LocatedFinding, other: LocatedFinding) -> float:
    return 1 + intersection_over_union(one.box, other.box) if one.term == other.term else 0


def _overlap(one: LocatedFinding, other: LocatedFinding) -> float:
    iou = intersection_over_union(one.box, other.box)
    return iou if iou >= _SAME_PLACE else 0


def _same_finding(one: LocatedFinding, other: LocatedFinding) -> float:
    return 1.0 if one.finding == other.finding else 0
