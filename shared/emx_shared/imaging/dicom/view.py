"""The radiologist's view: the patient's right on the left, head up, by PatientOrientation (PS3.3, C.7.6.1.1.1)."""

from emx_shared.imaging.dicom.header import Header
from emx_shared.imaging.orientation import UPRIGHT, name_of

_FRONTAL = {
    ("L", "F"): 1, ("R", "F"): 2, ("R", "H"): 3, ("L", "H"): 4, ("F", "L"): 5, ("F", "R"): 6, ("H", "R"): 7,
    ("H", "L"): 8,
}  # fmt: skip
"""Orientation of EXIF for the patient's directions along the stored rows and columns."""
_LATERAL = {"F": 1, "H": 3}, {"F": 6, "H": 8}
"""The same of a lateral view, by where foot or head is: along the columns, or along the rows. It is turned, but
not mirrored: either side may be in front."""


def view_orientation(header: Header) -> int:
    """Return the orientation (EXIF's number) that turns the stored image to the radiologist's view.

    A warning says if that is another than the stored one, or if it can't be told. A direction may have several
    letters, of which the first is the main one.
    """
    rows, columns = (*[text[:1] for text in header.texts("PatientOrientation")[:2]], "", "")[:2]
    if not rows and not columns:
        return UPRIGHT
    orientation = _FRONTAL.get((rows, columns))
    if orientation is None and columns in _LATERAL[0] and rows in ("A", "P"):
        orientation = _LATERAL[0][columns]
    elif orientation is None and rows in _LATERAL[1] and columns in ("A", "P"):
        orientation = _LATERAL[1][rows]
    if orientation is None:
        header.warnings.append(
            "The DICOM file's PatientOrientation is invalid: the picture is shown as it is stored. Check which "
            "side is which."
        )
        return UPRIGHT
    if orientation != UPRIGHT:
        header.warnings.append(
            f"The image is stored {name_of(orientation)} (PatientOrientation {rows}\\{columns}). It was turned to "
            "the radiologist's view, and boxes refer to the turned picture."
        )
    return orientation
