"""From stored values to those of the device's physics: the Modality LUT or the rescale (DICOM PS3.3, C.11.1)."""

import numpy as np

from emx_shared.imaging.dicom.header import Header
from emx_shared.imaging.dicom.histogram import Histogram
from emx_shared.imaging.dicom.lookup_table import LookupTable, Values


def modality_values(histogram: Histogram, header: Header) -> Values:
    """Return what each value of a histogram stands for.

    A table or rescale that can't be read, or that makes all values one, is passed over with a warning.
    """
    stored = histogram.values.astype(np.float64)
    several = np.count_nonzero(histogram.present) > 1
    for item in header.items("ModalityLUTSequence"):
        try:
            values = LookupTable(item, header.finder.little).look_up(stored)
        except Exception:  # pydicom and numpy raise whatever comes
            values = None
        if values is not None and not (several and np.ptp(values[histogram.present]) == 0):
            return values
        header.warnings.append("The ModalityLUTSequence has an invalid table, which was passed over.")
    slope, intercept = header.number("RescaleSlope", 1), header.number("RescaleIntercept", 0)
    if slope == 0:
        header.warnings.append("The RescaleSlope is 0 and was passed over.")
        slope = 1
    return stored * slope + intercept
