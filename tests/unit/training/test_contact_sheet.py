from pathlib import Path

import numpy as np
from PIL import Image

from emx_training.recipes.contact_sheet import main


def test_the_sheet_has_a_row_for_each_site_and_one_with_boxes(tmp_path: Path) -> None:
    main([str(tmp_path / "sheet.png"), "--columns", "3", "--size", "96"])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (3 * 102 - 6, 4 * 102 - 6)
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    colourful = (pixels.max(axis=2) - pixels.min(axis=2)) > 40
    assert colourful[:96].any()
    assert not colourful[102:].any()
