"""Image files as devices, exports and data sets make them, each with the picture that a right reading gives."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from emx_shared.imaging import BadImage, decode
from support.paths import FIELD_FILES


@dataclass(frozen=True)
class Case:
    """A row of ``cases.json``; its README says what the columns mean."""

    id: str
    file: str
    condition: str
    expected: str
    tolerance: int


CASES = [Case(**row) for row in json.loads((FIELD_FILES / "cases.json").read_text(encoding="utf-8"))]


def cases(*expected: str) -> pytest.MarkDecorator:
    fitting = [case for case in CASES if case.expected in expected or (not expected and ".png" in case.expected)]
    return pytest.mark.parametrize("case", fitting, ids=lambda case: f"{case.id} {case.condition}")


@cases()
def test_a_file_gives_the_picture_that_a_radiologist_expects(case: Case) -> None:
    shown = np.asarray(decode((FIELD_FILES / case.file).read_bytes()).image, dtype=int)
    expected = np.asarray(Image.open(FIELD_FILES / case.expected), dtype=int)
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).max() <= case.tolerance


@cases("accept")
def test_a_file_that_is_readable_gives_a_picture_with_contrast(case: Case) -> None:
    assert np.asarray(decode((FIELD_FILES / case.file).read_bytes()).image).std() > 20


@cases("refuse")
def test_a_file_that_gives_no_right_picture_is_refused_with_the_cause(case: Case) -> None:
    with pytest.raises(BadImage) as refused:
        decode((FIELD_FILES / case.file).read_bytes())
    assert "damaged or cut short" not in str(refused.value)


def test_no_file_is_forgotten() -> None:
    assert {case.file for case in CASES} == {
        path.name for path in FIELD_FILES.iterdir() if path.suffix in (".dcm", ".png", ".jpg", ".tif")
        and not path.name.endswith(".expected.png")
    }  # fmt: skip
