"""What was told where something else was true."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from matplotlib.figure import Figure

from emx_shared.contracts.findings import TERMS
from emx_shared.grammar import LocatedFinding
from emx_training.evaluate.overlap import intersection_over_union
from emx_training.evaluate.predictions import Case

NONE = "none"
"""As truth: a false alarm. As what was told: missed."""

_SAME_PLACE = 0.1
"""IoU from which a wrong term is taken to speak of the same thing."""

Likeness = Callable[[LocatedFinding, LocatedFinding], float]
"""How alike a true and a told finding are; 0 if they can't be paired."""

_CELL = 0.42
"""Inches."""


def confusion(cases: Sequence[Case]) -> Figure | str:
    """A row for each true term and one for none, a column for what was told; shades are shares of a row."""
    counts = confusions(cases)
    seen = {term for pair in counts for term in pair}
    terms = [term for term in TERMS if term in seen]
    if not terms:
        return "neither truth nor prediction holds any finding."
    names = [*terms, NONE]
    matrix = np.array([[counts[true, told] for told in names] for true in names], float)
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
    axes.set(xlabel="told", ylabel="true")
    axes.set_title(
        "True and told findings with their sides\n(numbers are findings, shades shares of a row)", fontsize=10
    )
    return figure


def confusions(cases: Iterable[Case]) -> Counter[tuple[str, str]]:
    """How often each true term was told as each.

    In each study, findings told with the right term are set aside first. What is left is paired if the boxes
    overlap (IoU of at least 0.1, the best first), then if it is one finding on two sides; the rest was missed, or
    is a false alarm.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for case in cases:
        true, told = list(case.truth.locations), list(case.told.locations)
        for likeness in (_same_term, _overlap, _same_finding):
            _pair_off(true, told, likeness, counts)
        counts.update((one.term, NONE) for one in true)
        counts.update((NONE, one.term) for one in told)
    return counts


def _pair_off(
    true: list[LocatedFinding], told: list[LocatedFinding], likeness: Likeness, counts: Counter[tuple[str, str]]
) -> None:
    """Take pairs out of both lists, the most alike first, while there is any likeness."""
    while pairs := [(likeness(a, b), i, j) for i, a in enumerate(true) for j, b in enumerate(told)]:
        alike, i, j = max(pairs)
        if alike <= 0:
            return
        counts[true.pop(i).term, told.pop(j).term] += 1


def _same_term(one: LocatedFinding, other: LocatedFinding) -> float:
    return 1 + intersection_over_union(one.box, other.box) if one.term == other.term else 0


def _overlap(one: LocatedFinding, other: LocatedFinding) -> float:
    iou = intersection_over_union(one.box, other.box)
    return iou if iou >= _SAME_PLACE else 0


def _same_finding(one: LocatedFinding, other: LocatedFinding) -> float:
    return 1.0 if one.finding == other.finding else 0
