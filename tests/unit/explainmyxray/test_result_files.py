"""Names of files that are made of images: in the images' folders, below the output's, each its own."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from emx_shared.contracts.report import ImageFacts, Report
from explainmyxray.cli.image_files import find_images, unique_names
from explainmyxray.cli.runs.coco import CocoBoxes
from explainmyxray.cli.runs.result_files import output_paths, safe_path, write_results
from explainmyxray.cli.runs.run_result import RunResult


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a/b.png", "a/b.png"),
        ("../../etc/passwd.png", "etc/passwd.png"),
        ("/etc//x.png", "etc/x.png"),
        ("C:\\scans\\x.png", "C__scans_x.png"),
        ("a\x00\x1b[31m.png", "a__[31m.png"),
        ("..", "unnamed"),
        ("", "unnamed"),
    ],
)
def test_a_path_stays_below_its_folder(name: str, path: str) -> None:
    assert str(safe_path(name)) == path


def test_a_long_name_fits_into_a_file_system_and_stays_its_own() -> None:
    names = ["ü" * 300 + f"{number}.dicom" for number in range(3)]
    paths = [safe_path(name) for name in names]
    assert len(set(paths)) == 3
    assert all(len(path.name.encode()) <= 200 and path.suffix == ".dicom" for path in paths)


def test_two_files_never_have_one_output() -> None:
    names = ["a.png", "a.dcm", "b.png", "c/a.png", "a:.png", "a?.png", "scan.1.png"]
    paths = output_paths(names)
    assert len(set(paths.values())) == len(names)
    assert [paths[name] for name in ("b.png", "c/a.png", "scan.1.png")] == ["b", "c/a", "scan.1"]
    assert [paths[name] for name in ("a.png", "a.dcm")] == ["a.png", "a.dcm"]


def test_files_are_named_below_what_named_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one/a.png", "one/deep/b.png", "two/a.png", "lone.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)

    def names(*arguments: str) -> list[str]:
        return list(unique_names(find_images(list(arguments))))

    assert names("one") == ["a.png", "deep/b.png"]
    assert names("one", "two", "lone.png") == ["one/a.png", "one/deep/b.png", "two/a.png", "lone.png"]
    assert names("one/a.png", "two/a.png") == ["a.png", "a-2.png"]
    assert names("*/**/*.png") == ["one/a.png", "one/deep/b.png", "two/a.png"]


def test_a_table_says_why_there_is_no_report(tmp_path: Path) -> None:
    results = [RunResult("a, b.png", "failed", "j", reason='It said "no".'), RunResult("c.png", "not read")]
    summary = write_results(tmp_path, [result.name for result in results], results)
    assert (summary.without_report, summary.reasons[0]) == (2, ("a, b.png", 'It said "no".'))
    with (tmp_path / "results.csv").open(newline="") as table:
        assert [row["reason"] for row in csv.DictReader(table)] == ['It said "no".', ""]
    assert json.loads((tmp_path / "coco.json").read_text())["images"] == []
    assert not list(tmp_path.glob("*.part"))


def test_boxes_are_where_the_file_has_them_however_it_was_turned(make_report: Callable[..., Report]) -> None:
    """A picture that is turned by 90 degrees clockwise: its upper left corner is the file's lower left one."""
    image = ImageFacts(width=80, height=60, media_type="image/jpeg", sha256="0" * 64, orientation=6)
    report = make_report((80, 60), [(0, 10, 20, 15)], image=image)
    boxes = CocoBoxes()
    boxes.add(RunResult("a.jpg", "succeeded", "j", report))
    boxes.add(RunResult("b.jpg", "succeeded", "j", report.model_copy(update={"abstained": True})))
    (found,) = boxes.document()["images"]
    (annotation,) = boxes.document()["annotations"]
    assert (found["width"], found["height"], found["file_name"]) == (60, 80, "a.jpg")
    assert annotation["bbox"] == [10, 60, 5, 20]
