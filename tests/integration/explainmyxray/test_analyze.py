"""``emx analyze`` as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from emx_shared.contracts.report import Report
from emx_shared.settings import settings
from explainmyxray.cli.main import app


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "chest.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90), dtype=np.uint8)).save(file)
    return file


@pytest.fixture(autouse=True)
def _chosen(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMX_MODEL", str(tiny_checkpoint))
    settings.cache_clear()


def analyze(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["analyze", *map(str, arguments)])


def test_json_is_the_report_of_the_chosen_model_and_the_overlay_has_the_images_size(image: Path) -> None:
    overlay = image.with_name("boxes.png")
    answer = analyze(image, "--json", "--overlay", overlay)
    assert answer.exit_code == 0, answer.output
    report = Report.model_validate_json(answer.stdout)
    assert report.model.name == "tiny"
    assert (report.image.width, report.image.height) == (90, 60)
    with Image.open(overlay) as written:
        assert written.format == "PNG"
        assert written.width >= 90
        assert written.height >= 60


def test_without_json_people_read_the_report(image: Path) -> None:
    answer = analyze(image)
    assert answer.exit_code == 0, answer.output
    for word in ("FINDINGS", "LOCATIONS", "IMPRESSION", "Not for clinical use"):
        assert word in answer.stdout


def test_quantisation_is_taken_from_the_settings(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMX_QUANTISATION", "none")
    answer = analyze(image, "--json")
    assert json.loads(answer.stdout)["model"]["quantisation"] == "none"


def test_a_model_that_is_not_there_is_a_sentence(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMX_MODEL", "/nowhere/model")
    answer = analyze(image)
    assert answer.exit_code == 1
    assert "There is no directory /nowhere/model" in answer.output.replace("\n", " ")
    assert isinstance(answer.exception, SystemExit)


def test_what_is_no_image_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no image")
    answer = analyze(file)
    assert answer.exit_code == 1
    assert "not a PNG, JPEG, TIFF or DICOM" in answer.output


def test_an_overlay_that_cannot_be_written_is_a_sentence(image: Path) -> None:
    answer = analyze(image, "--overlay", image.parent / "nowhere" / "boxes.png")
    assert answer.exit_code == 1
    assert "Cannot write" in answer.output


def test_a_bad_file_among_many_stops_no_other(image: Path) -> None:
    image.with_name("bad.png").write_bytes(b"no image")
    image.with_name("more.png").write_bytes(image.read_bytes())
    answer = analyze(image.parent, "--json", "--overlay", image.parent / "overlays")
    assert answer.exit_code == 1
    told = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [Path(one["file"]).name for one in told] == ["bad.png", "chest.png", "more.png"]
    assert "not a PNG, JPEG, TIFF or DICOM" in told[0]["error"]
    assert told[1]["report"]["findings"] == told[2]["report"]["findings"]
    assert sorted(path.name for path in (image.parent / "overlays").iterdir()) == ["chest.png", "more.png"]


def test_as_a_process_stdout_is_json_and_nothing_else(image: Path) -> None:
    command = [sys.executable, "-m", "explainmyxray", "analyze", str(image), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["name"] == "tiny"
    assert "Traceback" not in done.stderr
