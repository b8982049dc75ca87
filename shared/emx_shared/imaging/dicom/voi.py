"""From values to greys: the VOI LUT, the window or the values' own range (DICOM PS3.3, C.11.2)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np

from emx_shared.imaging.contrast import MIN_SPREAD, spread
from emx_shared.imaging.dicom.header import Header
from emx_shared.imaging.dicom.histogram import Histogram
from emx_shared.imaging.dicom.lookup_table import LookupTable, Values
from emx_shared.imaging.value_range import LONE_VALUES_WARNING, ValueRange, range_of
from emx_shared.imaging.windowing import Window

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_MAX_WINDOWS = 20
"""Of a file, and tables; the first that is good is used."""
_WHITE = 255.0


@dataclass(frozen=True)
class Voi:
    """A way from values to greys.

    Attributes:
        name: in warnings.
        greys: of each value, 0 to 255 and beyond.
        window: the window of values that gives these greys; None where they aren't linear.
        number: of the file's window, from 1; 0 for the range of the values, and for a table.
    """

    name: str
    greys: Values
    window: Window | None = None
    number: int = 0

    def shows(self, histogram: Histogram, contrast: float) -> bool:
        """Return whether the image has so much contrast with these greys."""
        return spread(self.greys[histogram.present], histogram.counts[histogram.present]) >= contrast


def choose_voi(values: Values, histogram: Histogram, header: Header) -> Voi:
    """Return the way from values to greys that the picture has.

    The first of the file's tables, then windows, that is valid and shows the image with contrast; the range of the
    values where there is none. A warning names what was passed over.
    """
    in_range = range_of(values[histogram.present])
    own_range = _of_range(values, in_range)
    visible = _visible(own_range, histogram)
    passed_over = []
    for voi in chain(_tables(values, header), _windows(values, header)):  # no further than the first that is good
        if isinstance(voi, str):
            passed_over.append(f"{voi} is invalid")
        elif not voi.shows(histogram, visible):
            passed_over.append(f"{voi.name} leaves the picture without contrast")
        else:
            break
    else:
        voi = own_range
        header.warnings += [LONE_VALUES_WARNING] if in_range.lone else []
    header.warnings += [f"The DICOM file's {why}: the picture shows {voi.name} instead." for why in passed_over]
    return voi


def further_windows(values: Values, histogram: Histogram, header: Header, chosen: Voi) -> Iterator[Voi]:
    """Yield the file's good windows after the one that was chosen; none where that isn't a linear window."""
    if chosen.window is None or not chosen.number:
        return
    visible = _visible(_of_range(values, range_of(values[histogram.present])), histogram)
    for voi in _windows(values, header):
        if not isinstance(voi, str) and voi.number > chosen.number and voi.shows(histogram, visible):
            yield voi


def _visible(own_range: Voi, histogram: Histogram) -> float:
    """Return the contrast that the picture must have: no more than with the range of its own values."""
    present = histogram.present
    return min(spread(own_range.greys[present], histogram.counts[present]), MIN_SPREAD)


def _of_range(values: Values, in_range: ValueRange) -> Voi:
    stretched: Values = (values - in_range.low) * (_WHITE / ((in_range.high - in_range.low) or 1))
    return Voi("the range of its values", stretched, Window.between(in_range.low, in_range.high))


def _tables(values: Values, header: Header) -> Iterator[Voi | str]:
    """Yield the file's tables; the names of those that are invalid."""
    for number, item in zip(range(1, _MAX_WINDOWS), header.items("VOILUTSequence"), strict=False):
        name = f"VOI LUT {number}"
        try:
            table = LookupTable(item, header.finder.little)
            greys = table.look_up(values) * (_WHITE / (2.0 ** _depth(table, name, header) - 1))
        except Exception:  # pydicom and numpy raise whatever comes
            yield name
        else:
            yield Voi(name, greys)


def _depth(table: LookupTable, name: str, header: Header) -> int:
    """Return of how many bits a table's entries are: what it says, unless its entries belie that.

    Entries that go beyond, fill a smaller depth exactly, or stay below a quarter, are of the depth that they need.
    """
    highest = int(table.entries.max())
    needed = max(highest.bit_length(), 1)
    exact = highest > 1 and highest == 2**needed - 1
    if needed <= table.bits <= 16 and not (needed < table.bits and exact) and needed > table.bits - 2:
        return table.bits
    header.warnings.append(
        f"The DICOM file's {name} says {table.bits} bits, but its entries are of {needed}: these were used."
    )
    return needed


def _windows(values: Values, header: Header) -> Iterator[Voi | str]:
    """Yield the file's windows; the names of those that are invalid."""
    centers, widths = header.numbers("WindowCenter"), header.numbers("WindowWidth")
    function = header.text("VOILUTFunction") or "LINEAR"
    if function not in _FUNCTIONS and centers and widths:
        header.warnings.append("The VOILUTFunction is not one that is known: LINEAR was used.")
        function = "LINEAR"
    for number, (center, width) in enumerate(list(zip_longest(centers, widths))[:_MAX_WINDOWS], start=1):
        yield _windowed(values, center, width, function, number) or f"window {number}"


def _windowed(values: Values, center: float | None, width: float | None, function: str, number: int) -> Voi | None:
    """Apply a window (C.11.2.1.2 and C.11.2.1.3); None for one without centre or valid width."""
    if center is None or width is None or width <= 0 or (function == "LINEAR" and width < 1):
        return None
    greys: Values
    window = None
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            greys = _WHITE / (1 + np.exp(-4 * (values - center) / width))
    elif function == "LINEAR" and width == 1:
        window = _threshold(values, center - 0.5)
        greys = np.where(values > center - 0.5, _WHITE, 0.0)
    else:
        window = Window(center, width) if function == "LINEAR_EXACT" else Window(center - 0.5, width - 1)
        greys = ((values - window.center) / window.width + 0.5) * _WHITE
    return Voi(f"window {number}", greys, window, number) if np.isfinite(greys).all() else None


def _threshold(values: Values, at: float) -> Window:
    """Return a window in which values up to ``at`` are black, and the others white."""
    below, above = values[values <= at], values[values > at]
    return Window.between(below.max() if below.size else at - 0.5, above.min() if above.size else at + 0.5)
