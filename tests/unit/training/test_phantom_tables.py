from pathlib import Path

import pytest
from PIL import Image

from emx_training.data.phantom_reports import report_of
from emx_training.data.phantom_tables import write_collection
from emx_training.data.tables import REPORT_COLUMNS, BadTable, write_table
from emx_training.finetune.examples import read_boxes, read_reports
from emx_training.pretrain.phantom_cache import CachedPhantoms, cached_phantoms


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[CachedPhantoms, CachedPhantoms]:
    cache = tmp_path_factory.mktemp("phantoms")
    return cached_phantoms(range(12), cache), cached_phantoms(range(12, 16), cache)


def test_the_phases_read_phantoms_as_any_collection(
    drawn: tuple[CachedPhantoms, CachedPhantoms], tmp_path: Path
) -> None:
    write_collection(tmp_path, *drawn)
    for split, phantoms in zip(("train", "validation"), drawn, strict=True):
        reports = read_reports(tmp_path / f"{split}.csv", tmp_path)
        assert len(reports) == len(phantoms)
        for index, report in enumerate(reports):
            assert report.answer[0][0] == f"FINDINGS: {report_of(phantoms.findings(index)).findings}\n"
            with Image.open(report.image) as image:
                assert image.tobytes() == phantoms.images[index].tobytes()
    boxes = read_boxes(tmp_path / "boxes.csv", tmp_path)
    assert len(boxes) == len(drawn[0])
    for index, boxed in enumerate(boxes):
        assert "".join(text for text, _ in boxed.answer) == str(
            report_of(drawn[0].findings(index))
        )  # each box is back in its own bins


def write_rows(folder: Path, *sections: tuple[str, str]) -> Path:
    Image.new("L", (8, 8)).save(folder / "a.png")
    write_table(folder / "train.csv", REPORT_COLUMNS, [("a.png", *row) for row in sections])
    return folder / "train.csv"


def test_a_row_that_no_report_can_hold_is_left_out_and_named(tmp_path: Path) -> None:
    rows = [('A 1.8 cm\nnodule, "stable".', "1. Nodule."), ("A {mass}.", "Mass."), ("Clear.", " ")]
    table = write_rows(tmp_path, *rows)
    with pytest.warns(UserWarning, match=r"2 of 3 rows .*row 3, column findings: holds '{'; row 4, .* is empty"):
        (only,) = read_reports(table, tmp_path)
    assert only.answer[0][0] == 'FINDINGS: A 1.8 cm nodule, "stable".\n'
    with pytest.raises(BadTable, match="1 of 1 rows"):
        read_reports(write_rows(tmp_path, ("<b>", "A.")), tmp_path)


def test_a_collection_that_is_whole_is_left_as_it_is(
    drawn: tuple[CachedPhantoms, CachedPhantoms], tmp_path: Path
) -> None:
    write_collection(tmp_path, *drawn)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write_collection(tmp_path, *drawn)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
