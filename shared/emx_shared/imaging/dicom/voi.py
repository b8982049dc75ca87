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

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_MAX_WINDOWS = 20
"""Of a file, and tables; the first that is good is used."""
_WHITE = 255.0


@dataclass(frozen=True)
class _Voi:
    """One way from values to greys: its name in warnings, and the greys; None where it is invalid."""

    name: str
    greys: Values | None


def voi_greys(values: Values, histogram: Histogram, header: Header) -> Values:
    """Return the grey of each value, 0 to 255 and beyond.

    The first of the file's tables, then windows, that is valid and shows the image with contrast; the range of the
    values where there is none. A warning names what was passed over.
    """
    present = histogram.present
    counts = histogram.counts[present]
    in_range = range_of(values[present])
    own_range = _Voi("the range of its values", _of_range(values, in_range))
    assert own_range.greys is not None
    visible = min(spread(own_range.greys[present], counts), MIN_SPREAD)
    passed_over = []
    for voi in chain(_tables(values, header), _windows(values, header)):  # no further than the first that is good
        if voi.greys is None or not np.isfinite(voi.greys).all():
            passed_over.append(f"{voi.name} is invalid")
        elif spread(voi.greys[present], counts) < visible:
            passed_over.append(f"{voi.name} leaves the picture without contrast")
        else:
            break
    else:
        voi = own_range
        header.warnings += [LONE_VALUES_WARNING] if in_range.lone else []
    header.warnings += [f"The DICOM file's {why}: the picture shows {voi.name} instead." for why in passed_over]
    assert voi.greys is not None
    return voi.greys


def _of_range(values: Values, in_range: ValueRange) -> Values:
    stretched: Values = (values - in_range.low) * (_WHITE / ((in_range.high - in_range.low) or 1))
    return stretched


def _tables(values: Values, header: Header) -> Iterator[_Voi]:
    for number, item in zip(range(1, _MAX_WINDOWS), header.items("VOILUTSequence"), strict=False):
        name = f"VOI LUT {number}"
        try:
            table = LookupTable(item, header.finder.little)
            yield _Voi(name, table.look_up(values) * (_WHITE / (2.0 ** _depth(table, name, header) - 1)))
        except Exception:  # pydicom and numpy raise whatever comes
            yield _Voi(name, None)


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


def _windows(values: Values, header: Header) -> Iterator[_Voi]:
    centers, widths = header.numbers("WindowCenter"), header.numbers("WindowWidth")
    function = header.text("VOILUTFunction") or "LINEAR"
    if function not in _FUNCTIONS and centers and widths:
        header.warnings.append("The VOILUTFunction is not one that is known: LINEAR was used.")
        function = "LINEAR"
    for number, (center, width) in enumerate(list(zip_longest(centers, widths))[:_MAX_WINDOWS], start=1):
        yield _Voi(f"window {number}", _windowed(values, center, width, function))


def _windowed(values: Values, center: float | None, width: float | None, function: str) -> Values | None:
    """Apply a window (C.11.2.1.2 and C.11.2.1.3); None for one without centre or valid width."""
    if center is None or width is None or width <= 0 or (function == "LINEAR" and width < 1):
        return None
    greys: Values
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            greys = _WHITE / (1 + np.exp(-4 * (values - center) / width))
    elif function == "LINEAR_EXACT":
        greys = ((values - center) / width + 0.5) * _WHITE
    elif width == 1:
        greys = np.where(values > center - 0.5, _WHITE, 0.0)
    else:
        greys = ((values - (center - 0.5)) / (width - 1) + 0.5) * _WHITE
    return greys
