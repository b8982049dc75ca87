"""The radiologist's view, however the pixels are stored, and boxes on the stored pixels."""

import io
from itertools import permutations, product

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from emx_shared.contracts.report import Box, ImageFacts
from emx_shared.imaging import decode
from emx_shared.imaging.orientation import turn
from support.dicom import Pixels, radiograph, ramp, written

AXES = {"R": (0, -1), "L": (0, 1), "H": (1, -1), "F": (1, 1)}
"""Of each direction: the axis of the radiologist's view (0 across, 1 down), and whether along it."""
FRONTAL = [f"{a}\\{b}" for a, b in permutations(AXES, 2) if AXES[a][0] != AXES[b][0]]


def stored_as(orientation: str, view: Pixels) -> Pixels:
    """What a file has whose rows and columns go in these directions, if ``view`` is the radiologist's."""
    along, down = orientation.split("\\")
    across = view if AXES[along[0]][0] == 0 else view.T
    if AXES[along[0]][1] < 0:
        across = across[:, ::-1]
    return across[::-1] if AXES[down[0]][1] < 0 else across


@pytest.mark.parametrize("orientation", [*FRONTAL, "RP\\F", "L \\ F", "r\\h", "FL\\RA"])
def test_a_frontal_view_is_turned_and_mirrored_to_that_of_the_radiologist(orientation: str) -> None:
    view = ramp(8)
    stored = np.ascontiguousarray(stored_as(orientation.upper().replace(" ", ""), view))
    decoded = decode(written(radiograph(stored, 8, PatientOrientation=orientation, PixelSpacing=["0.1", "0.2"])))
    assert_array_equal(np.asarray(decoded.image), view)
    as_stored = decoded.facts.orientation == 1
    assert as_stored == (orientation in ("L\\F", "L \\ F"))
    assert bool(decoded.warnings) != as_stored
    on_its_side = stored.shape != view.shape
    assert decoded.facts.pixel_spacing == ((0.2, 0.1) if on_its_side else (0.1, 0.2))


@pytest.mark.parametrize("orientation", ["A\\F", "P\\F", "A\\H", "P\\H", "F\\A", "F\\P", "H\\A", "H\\P"])
def test_a_lateral_view_is_turned_head_up_but_never_mirrored(orientation: str) -> None:
    pixels = ramp(8)
    decoded = decode(written(radiograph(pixels, 8, PatientOrientation=orientation)))
    quarters = {"F": 0, "H": 2}.get(orientation[2], {"F": 3, "H": 1}.get(orientation[0]))
    assert_array_equal(np.asarray(decoded.image), np.rot90(pixels, quarters or 0))


@pytest.mark.parametrize("orientation", ["L\\R", "F\\H", "A\\P", "L\\A", "X\\Y", "L", "\\F", "LE\\"])
def test_an_orientation_that_cannot_be_is_said_and_left(orientation: str) -> None:
    decoded = decode(written(radiograph(ramp(8), 8, PatientOrientation=orientation)))
    assert_array_equal(np.asarray(decoded.image), ramp(8))
    assert decoded.facts.orientation == 1
    assert "PatientOrientation is invalid" in " ".join(decoded.warnings)


@pytest.mark.parametrize("orientation", ["", "\\", " \\ ", None])
def test_without_an_orientation_the_image_is_shown_as_it_is_stored(orientation: str | None) -> None:
    decoded = decode(written(radiograph(ramp(8), 8, PatientOrientation=orientation)))
    assert_array_equal(np.asarray(decoded.image), ramp(8))
    assert not decoded.warnings


def test_mirrored_and_upside_down_are_said() -> None:
    said = {
        "R\\F": "stored mirrored (PatientOrientation R\\F)",
        "R\\H": "stored upside down",
        "F\\R": "stored on its side",
        "L\\H": "stored mirrored and upside down",
    }
    for orientation, words in said.items():
        stored = np.ascontiguousarray(stored_as(orientation, ramp(8)))
        decoded = decode(written(radiograph(stored, 8, PatientOrientation=orientation)))
        assert words in decoded.warnings[0]


@pytest.mark.parametrize(("orientation", "corner"), [*product(range(1, 9), [(3, 5), (30, 40)])])
def test_a_box_has_the_same_pixels_stored_as_shown(orientation: int, corner: tuple[int, int]) -> None:
    stored = Image.fromarray(ramp(8))
    shown = turn(stored, orientation)
    facts = ImageFacts(
        width=shown.width, height=shown.height, media_type="image/png", sha256="0" * 64, orientation=orientation
    )
    box = Box(xmin=corner[0], ymin=corner[1], xmax=corner[0] + 7, ymax=corner[1] + 4)
    found = facts.stored(box)
    cut = turn(stored.crop((int(found.xmin), int(found.ymin), int(found.xmax), int(found.ymax))), orientation)
    assert_array_equal(np.asarray(cut), np.asarray(shown.crop((*corner, corner[0] + 7, corner[1] + 4))))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_facts_keep_how_exif_turned_an_image(kind: str, orientation: int) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(ramp(8)).save(buffer, kind, exif=exif)
    decoded = decode(buffer.getvalue())
    assert decoded.facts.orientation == orientation
    assert decoded.image.size == turn(Image.fromarray(ramp(8)), orientation).size
    assert not decoded.warnings


def test_exif_data_that_cannot_be_read_are_said() -> None:
    buffer = io.BytesIO()
    Image.fromarray(ramp(8)).save(buffer, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff")
    decoded = decode(buffer.getvalue())
    assert_array_equal(np.asarray(decoded.image), ramp(8))
    assert "EXIF" in decoded.warnings[0]
