"""Whether findings that are reported with a probability are right that often."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from emx_training.evaluate.calibration import BINS, Bin, bins, expected_calibration_error, forecasts
from emx_training.evaluate.predictions import Case

_INK, _FAINT = "#2b6cb0", "#bcd3ea"


def reliability(cases: Sequence[Case]) -> Figure | str:
    """Draw the share of right findings against the stated probability, with 95 % intervals; below, their numbers.

    Returns the reason as text if there is nothing to draw.
    """
    found = forecasts(cases)
    if not found:
        return "the predictions have no probabilities."
    tenths = bins(found)
    figure = Figure(figsize=(5.0, 6.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    above.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="perfectly calibrated")
    stated, right = [tenth.probability for tenth in tenths], [tenth.right for tenth in tenths]
    spread = [_wilson(tenth) for tenth in tenths]
    errors = [[max(r - low, 0) for r, (low, _) in zip(right, spread, strict=True)],
              [max(high - r, 0) for r, (_, high) in zip(right, spread, strict=True)]]  # fmt: skip
    above.errorbar(
        stated, right, yerr=errors, color=_INK, ecolor=_FAINT, elinewidth=3, marker="o", label="reported findings"
    )
    above.set(ylabel="share that is right (finding and side)", ylim=(0, 1.02), xlim=(0, 1))
    above.legend(loc="lower right", fontsize=8, frameon=False)
    error = expected_calibration_error(found)
    above.set_title(f"Expected calibration error {error:.3f} ({len(found)} findings)", fontsize=11)
    below.hist([one.probability for one in found], bins=BINS, range=(0, 1), color=_FAINT, edgecolor="white")
    below.set(xlabel="stated probability", ylabel="findings")
    for axes in (above, below):
        axes.grid(color="0.93")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _wilson(tenth: Bin, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, JASA 1927)."""
    n, p = tenth.forecasts, tenth.right
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)
