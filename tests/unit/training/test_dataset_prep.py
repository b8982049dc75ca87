"""Data preparation on the real tables of the torchxrayvision wheel, with phantoms in place of the pixels."""

import csv
import gzip
import importlib.util
import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
from PIL import Image

from emx_shared.contracts.findings import TERMS
from emx_shared.grammar import ReportText, parse
from emx_training.data.openi import read_openi
from emx_training.data.padchest import read_padchest
from emx_training.data.source_image import SourceImage
from emx_training.data.tables import BadTable
from emx_training.data.vindr import read_vindr
from emx_training.dataset_prep import READ_BOXES, READ_REPORTS, main
from emx_training.phantoms import render

_FOUND = importlib.util.find_spec("torchxrayvision")  # its tables alone: importing it takes torchvision
TABLES = Path(str(_FOUND and _FOUND.origin)).parent / "data"
PADCHEST = TABLES / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
OPENI = TABLES / "NLMCXR_reports.tgz"
VINDR = TABLES / "vinbigdata-train.csv.gz"
real_tables = pytest.mark.skipif(not PADCHEST.exists(), reason="no torchxrayvision wheel here")


@pytest.fixture(scope="module")
def padchest() -> list[SourceImage]:
    return list(read_padchest(PADCHEST))


@real_tables
def test_padchest_gives_frontal_images_that_a_physician_labelled(padchest: list[SourceImage]) -> None:
    assert 20_000 < len(padchest) < 39_053
    terms = Counter(term for source in padchest for term in source.terms)
    assert set(terms) <= set(TERMS)
    assert terms["cardiomegaly"] > 1000
    assert terms["pleural effusion left"] > 100 < terms["pleural effusion right"]


@real_tables
def test_every_text_is_one_that_the_grammar_takes(padchest: list[SourceImage]) -> None:
    texts = {(source.findings, source.impression) for source in [*padchest, *read_openi(OPENI)]}
    for findings, impression in texts:
        text = str(ReportText(findings, (), impression))
        assert parse(text) == ReportText(findings, (), impression)


def openi_archive(folder: Path, findings: str) -> Path:
    text = (
        f"<r><AbstractText Label='FINDINGS'>{escape(findings)}</AbstractText>"
        "<AbstractText Label='IMPRESSION'>None.</AbstractText><parentImage id='a'/></r>"
    ).encode()
    with tarfile.open(folder / "reports.tgz", "w:gz") as archive:
        entry = tarfile.TarInfo("1.xml")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    return folder / "reports.tgz"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1. A 1.8 cm nodule vs. scar. 2. T.B.<BR>was seen", "1. A 1.8 cm nodule vs. scar. 2. T.B. was seen."),
        ("1. A nodule. 2. Seen by XXXX. 3. Is it new? .", "A nodule. Is it new?"),
    ],
)
def test_openi_is_read_to_the_letter_but_for_what_was_masked(tmp_path: Path, written: str, read: str) -> None:
    (source,) = read_openi(openi_archive(tmp_path, written))
    assert source.findings == read


@real_tables
def test_a_patient_is_in_one_split(padchest: list[SourceImage]) -> None:
    splits: dict[str, set[str]] = {}
    for source in padchest:
        splits.setdefault(source.patient, set()).add(source.split)
    assert all(len(found) == 1 for found in splits.values())
    shares = Counter(source.split for source in padchest)
    assert 0.88 < shares["train"] / shares.total() < 0.92


@real_tables
def test_images_are_prepared_and_corrupt_ones_are_reported(padchest: list[SourceImage], tmp_path: Path) -> None:
    images, output = tmp_path / "images", tmp_path / "out"
    for number, source in enumerate(padchest[:12]):
        path = images / source.image
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = render(number, 128).image
        if number < 10:
            Image.fromarray(pixels.astype(np.uint16) * 100).save(path)
        elif number == 10:
            path.write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    options = ["--table", str(PADCHEST), "--images", str(images), "--output", str(output), "--size", "64"]
    main(["padchest", *options, "--limit", "12"])
    prepared = sorted((output / "images").glob("*.png"))
    assert len(prepared) == 10
    with Image.open(prepared[0]) as image:
        assert (image.mode, image.size) == ("L", (64, 64))
        assert np.asarray(image).max() > 200  # stretched from 16 bits
    rows = [row for split in ("train", "validation", "test") for row in _rows(output / f"{split}.csv")]
    assert len(rows) == 10
    assert {row["reason"] for row in _rows(output / "skipped.csv")} >= {"there is no such file"}
    assert json.loads((output / "summary.json").read_text())["counts"]["skipped"] == 2

    before = {path: path.stat().st_mtime_ns for path in prepared}
    main(["padchest", *options, "--limit", "12"])  # resumes where it stopped: nothing is prepared again
    assert {path: path.stat().st_mtime_ns for path in prepared} == before


@real_tables
def test_vindr_boxes_need_two_readers_and_get_their_side(tmp_path: Path) -> None:
    found = list(read_vindr(VINDR))
    assert len(found) == 15_000
    boxed = [one for one in found if one.found]
    normal = [one for one in found if not one.found]
    assert len(boxed) > 1000 < len(normal)
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for one in boxed[:3]:
        Image.effect_noise((3500, 3500), 40).save(images / one.image)
    table = tmp_path / "first.csv"
    wanted = {one.image.removesuffix(".png") for one in boxed[:3]}
    table.write_text(_only(VINDR, wanted))
    main(["vindr", "--table", str(table), "--images", str(images), "--output", str(output), "--size", "256"])
    rows = _rows(output / "boxes.csv")
    assert len(rows) == sum(len(one.found) for one in boxed[:3])
    for row in rows:
        assert row["term"] in TERMS
        assert 0 <= float(row["xmin"]) < float(row["xmax"]) <= 1
        centre = (float(row["xmin"]) + float(row["xmax"])) / 2
        if row["term"].endswith((" left", " right")):
            assert row["term"].endswith(" right") == (centre < 0.5)


@pytest.mark.parametrize(
    ("collection", "header", "row", "expected"),
    [
        ("padchest", "ImageID,PatientID", "a,b", "no column ImageDir"),
        (
            "padchest",
            "ImageID,ImageDir,PatientID,Projection,MethodLabel,LabelsLocalizationsBySentence",
            "a.png,0,p,PA,Physician,[unclosed",
            "row 2, column LabelsLocalizationsBySentence",
        ),
        ("vindr", "image_id", "a", "no column class_name"),
        (
            "vindr",
            "image_id,class_name,rad_id,x_min,y_min,x_max,y_max",
            "a,Cardiomegaly,R1,50,50,10,60",
            "row 2: the box is inverted",
        ),
        ("boxes", "image,label,xmin", "a,nodule,1", "no column ymin"),
        ("boxes", "image,label,xmin,ymin,xmax,ymax", "a,unicorn,1,1,2,2", "row 2, column label: 'unicorn'"),
        ("boxes", "image,label,xmin,ymin,xmax,ymax", "a,nodule,1,1,x,2", "row 2: xmin, ymin, xmax and ymax"),
        ("boxes", "image,label,xmin,ymin,xmax,ymax", "a,nodule,5,1,2,2", "row 2: the box is inverted"),
        ("padchest-gr", "{", "", "can't be read"),
        ("padchest-gr", '[{"ImageID": "a.png"}]', "", "image 1: 'findings' is missing"),
        (
            "padchest-gr",
            '[{"ImageID": "a", "findings": [{"abnormal": true, "labels": ["mass"], "boxes": [[1, 2]]}]}]',
            "",
            "image 1, boxes",
        ),
    ],
)
def test_an_error_names_the_row_and_column_of_a_bad_table(
    tmp_path: Path, collection: str, header: str, row: str, expected: str
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(f"{header}\n{row}\n")
    reader = {**READ_REPORTS, **READ_BOXES}[collection]
    with pytest.raises(BadTable, match=expected):
        list(reader(table))


def test_padchest_gr_gives_the_boxes_of_findings_that_the_vocabulary_has(tmp_path: Path) -> None:
    def finding(abnormal: bool, labels: list[str], boxes: list[list[float]]) -> dict[str, object]:
        return {"sentence_en": "…", "abnormal": abnormal, "labels": labels, "boxes": boxes, "extra_boxes": boxes}

    heart, effusion, scar = [0.3, 0.5, 0.7, 0.8], [0.1, 0.7, 0.3, 0.9], [0.2, 0.2, 0.3, 0.3]
    entries = [
        {"ImageID": "a.png", "findings": [finding(True, ["cardiomegaly"], [heart]),
                                          finding(True, ["loculated pleural effusion"], [effusion]),
                                          finding(False, ["pneumothorax"], [])]},
        {"ImageID": "normal.png", "findings": [finding(False, ["pleural effusion"], [])]},
        {"ImageID": "other.png", "findings": [finding(True, ["surgery neck"], [scar])]},
    ]  # fmt: skip
    table, images, output = tmp_path / "grounded.json", tmp_path / "images", tmp_path / "out"
    table.write_text(json.dumps(entries))
    images.mkdir()
    for entry in entries:
        Image.effect_noise((200, 400), 40).save(images / str(entry["ImageID"]))
    main(["padchest-gr", "--table", str(table), "--images", str(images), "--output", str(output)])
    rows = _rows(output / "boxes.csv")
    assert [(row["image"], row["term"]) for row in rows] == [
        ("images/a.png", "cardiomegaly"),
        ("images/a.png", "pleural effusion right"),
        ("images/normal.png", ""),
    ]
    assert [float(rows[1][side]) for side in ("xmin", "ymin", "xmax", "ymax")] == effusion


def test_a_table_of_ones_own_may_use_synonyms_and_pixels(tmp_path: Path) -> None:
    table, images, output = tmp_path / "boxes.csv", tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for name in ("one.jpg", "two.png", "wide.png"):
        Image.effect_noise((200, 400), 40).convert("RGB").save(images / name)
    table.write_text(
        "image,label,xmin,ymin,xmax,ymax\none.jpg,Lung nodule,150,100,170,120\ntwo.png,,,,,\n"
        "wide.png,cardiomegaly,10,10,300,50\n"
    )
    main(["boxes", "--table", str(table), "--images", str(images), "--output", str(output)])
    rows = _rows(output / "boxes.csv")
    assert [(row["image"], row["term"], row["xmin"], row["ymax"]) for row in rows] == [
        ("images/one.png", "nodule left", "0.75000", "0.30000"),
        ("images/two.png", "", "", ""),
    ]
    assert _rows(output / "skipped.csv")[0]["reason"].startswith("a box of cardiomegaly reaches beyond the image")


def test_a_missing_image_folder_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="There is no folder"):
        main(["padchest", "--table", "t", "--images", str(tmp_path / "none"), "--output", str(tmp_path)])


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _only(table: Path, images: set[str]) -> str:
    lines = gzip.decompress(table.read_bytes()).decode().splitlines()
    return "\n".join([lines[0], *(line for line in lines if line.partition(",")[0] in images)]) + "\n"
