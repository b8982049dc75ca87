"""From values to samples of 16 bits, which keep more than one window shows."""

import numpy as np

from emx_shared.imaging.dicom.header import Header
from emx_shared.imaging.dicom.histogram import Histogram
from emx_shared.imaging.dicom.lookup_table import Values
from emx_shared.imaging.dicom.voi import Voi, further_windows
from emx_shared.imaging.windowing import ALL_SAMPLES, WHITE, SampleMap, Samples, Window, Windowing

EXPLANATION = "WindowCenterWidthExplanation"
"""The element with the windows' names. It is free text, which may hold anything."""
_HARMLESS_NAMES = {
    "NORMAL", "HARDER", "SOFTER", "HARD", "SOFT", "STANDARD", "DEFAULT", "WINDOW",
    *(f"WINDOW{number}" for number in range(1, 21)),
}  # fmt: skip
"""Names of windows that are passed on."""


def deep_samples(
    values: Values, histogram: Histogram, header: Header, voi: Voi, inverse: bool
) -> tuple[Samples, Windowing]:
    """Return the sample of each value, and the windows that show the samples.

    Of a linear window, or of the values' own range, the samples are linear in the values, so that other windows
    can be chosen. Of a table or a sigmoid they are what that makes of the values, in 16 bits.

    Args:
        values: of the histogram.
        histogram: of the stored values.
        header: has further windows, and their names if it was read with EXPLANATION.
        voi: the way to the picture of 8 bits.
        inverse: whether low values are bright (MONOCHROME1).
    """
    if voi.window is None:
        samples, windowing = SampleMap(0, WHITE / 255).samples(voi.greys), Windowing(ALL_SAMPLES)
    else:
        to_samples = _map(values, histogram, voi.window, inverse)
        further = _named(list(further_windows(values, histogram, header, voi)), header.texts(EXPLANATION))
        samples = to_samples.samples(values)
        windowing = Windowing(
            to_samples.window(voi.window), tuple((name, to_samples.window(one)) for name, one in further)
        )
    if inverse:
        samples, windowing = ~samples, windowing.inverted()
    samples[histogram.padding] = 0
    return samples, windowing


def _map(values: Values, histogram: Histogram, shown: Window, inverse: bool) -> SampleMap:
    """Return the map of the values that are present.

    Where there is padding its sample is 0, which the window must show in black: if the values alone would make it
    brighter, the range goes on to where the window is black.
    """
    present, step = values[histogram.present], _step(values)
    low, high = float(present.min()), float(present.max())
    if histogram.padded and not inverse and shown.black < low:
        low -= np.ceil((low - shown.black) / step) * step
    if histogram.padded and inverse and shown.white > high:
        high = shown.white
    return SampleMap.of(low, high, shown, step)


def _step(values: Values) -> float:
    """Return a number of which all differences between the values are multiples.

    Entries of a table are whole numbers; values of a rescale have the same distance from one to the next.
    """
    if len(values) < 2:
        return 1.0
    if (values == np.rint(values)).all() and np.abs(values).max() < 2**53:
        return float(np.gcd.reduce(np.diff(values).astype(np.int64))) or 1.0
    return float(np.ptp(values)) / (len(values) - 1) or 1.0


def _named(windows: list[Voi], explanations: list[str]) -> list[tuple[str, Window]]:
    """Name windows after the file's explanations where these are harmless, else by number; no name comes twice."""
    named: dict[str, Window] = {}
    for voi in windows:
        if voi.window is not None:
            said = explanations[voi.number - 1] if voi.number <= len(explanations) else ""
            harmless = said in _HARMLESS_NAMES and said not in named
            named[said if harmless else f"window {voi.number}"] = voi.window
    return list(named.items())
