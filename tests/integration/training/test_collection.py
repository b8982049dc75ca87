"""A model judged on tables as dataset_prep writes them, of phantoms, with its page and baselines."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from emx_shared.contracts.box_table import BOX_COLUMNS
from emx_training.data.phantom_reports import report_of
from emx_training.data.tables import REPORT_COLUMNS, write_table
from emx_training.phantoms import held_out_seeds, render
from explainmyxray.cli.main import app

COUNT = 16


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen held-out phantoms, two of each patient, in tables of both phases; and eight others to learn from."""
    folder = tmp_path_factory.mktemp("collection")
    (folder / "images").mkdir()
    reports: list[tuple[object, ...]] = []
    boxes: list[tuple[object, ...]] = []
    for number, seed in enumerate(held_out_seeds(COUNT + 8)):
        phantom = render(seed)
        name, patient = f"images/{number}.png", f"p{number // 2}"
        Image.fromarray(phantom.image).save(folder / name)
        report = report_of(phantom.findings)
        terms = ";".join(one.term for one in report.locations)
        reports.append((name, report.findings, report.impression, terms, patient))
        for one in report.locations:
            ymin, xmin, ymax, xmax = one.box.fractions()
            boxes.append((name, one.term, xmin, ymin, xmax, ymax))
        if not report.locations:
            boxes.append((name, "", "", "", "", ""))
    columns = (*REPORT_COLUMNS, "terms", "patient")
    write_table(folder / "test.csv", columns, reports[:COUNT])
    write_table(folder / "train.csv", columns, reports[COUNT:])
    write_table(folder / "boxes.csv", BOX_COLUMNS, boxes)
    return folder


def evaluated(*arguments: object) -> Any:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert result.exit_code == 1
    return " ".join(result.stderr.split())


def test_the_demo_model_is_judged_on_a_table_of_reports(collection: Path, tmp_path: Path) -> None:
    results, page = tmp_path / "results.json", tmp_path / "page.html"
    found = evaluated("--data", collection / "test.csv", "--output", results, "--html", page)
    assert (found["images"], found["patients"], found["labels_from"]) == (COUNT, COUNT // 2, "terms")
    figures = found["figures"]
    for name in ("text_label_f1", "location_label_f1", "bleu", "rouge_l", "parse_rate", "flagged_rate"):
        low, high = figures[name]["interval"]
        assert -1e-9 <= low <= figures[name]["value"] + 1e-9 <= high + 2e-9 <= 1 + 1e-6
    assert figures["text_label_f1"]["value"] > 0.8
    constant = found["baselines"]["constant"]["figures"]
    assert constant["text_label_f1"]["value"] < figures["text_label_f1"]["value"]
    assert "mean_iou" in found["absent"]
    assert "absent" in found["baselines"]["untuned"]
    assert 0 <= found["calibration_error"] <= 1
    kept = json.loads(results.read_text())
    assert len(kept["cases"]) == COUNT
    assert kept["figures"] == figures
    html = page.read_text()
    assert html.count("<article>") == html.count("data:image/png;base64,") == 12
    assert not re.search(r'(?:src|href)="(?!data:)', html)
    assert str(collection) not in html + results.read_text()


def test_it_is_judged_on_a_table_of_boxes_beside_an_untuned_model(
    collection: Path, base: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    found = evaluated(
        "--data", collection / "boxes.csv", "--train", collection / "boxes.csv", "--count", 6, "--baseline", base,
        "--html", page,
    )  # fmt: skip
    assert (found["images"], found["patients"], found["labels_from"]) == (6, None, "boxes")
    assert found["figures"]["mean_iou"]["value"] > 0.5
    for name in ("constant", "untuned"):
        assert found["baselines"][name]["figures"]["micro_f1"]["value"] < found["figures"]["micro_f1"]["value"]
    assert "bleu" in found["absent"]
    html = page.read_text()
    assert "<rect" in html
    assert "stroke-dasharray" in html


def test_an_image_that_cannot_be_decoded_is_left_out_and_counted(collection: Path, tmp_path: Path) -> None:
    whole = (collection / "images" / "0.png").read_bytes()
    (tmp_path / "whole.png").write_bytes(whole)
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    rows = [(name, "The lungs are clear.", "No acute abnormality.") for name in ("whole.png", "cut.png")]
    write_table(tmp_path / "test.csv", REPORT_COLUMNS, rows)
    found = evaluated("--data", tmp_path / "test.csv")
    assert found["images"] == 1
    assert found["unreadable"].keys() == {"cut.png"}
    write_table(tmp_path / "test.csv", REPORT_COLUMNS, rows[1:])
    assert "no image could be read" in refused("--data", tmp_path / "test.csv")


def test_what_is_missing_or_does_not_go_together_is_named(collection: Path, tmp_path: Path) -> None:
    table = collection / "test.csv"
    assert "nowhere.csv" in refused("--data", tmp_path / "nowhere.csv").replace(" ", "")  # wherever a line breaks
    assert "--data" in refused("--html", tmp_path / "page.html")
    assert "--html" in refused("--data", table, "--plots", tmp_path)
    assert "EMX_SERVER" in refused("--data", table, "--judge", "somebody")
    assert "no folder" in refused("--data", table, "--html", tmp_path / "no" / "page.html")
