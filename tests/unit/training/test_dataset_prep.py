"""Data preparation on the real tables of the torchxrayvision wheel, with phantoms in place of the pixels."""

import csv
import gzip
import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
from PIL import Image

from emx_shared.contracts.findings import BY_LABEL, TERMS
from emx_shared.grammar import LocatedFinding, LocBox, ReportText, parse
from emx_training.data.openi import read_openi
from emx_training.data.padchest import read_padchest
from emx_training.data.padchest_gr import read_padchest_gr
from emx_training.data.phantom_reports import HEART_NORMAL, LUNGS_CLEAR, NOTHING_FOUND, report_of
from emx_training.data.source_image import SourceImage, split_of
from emx_training.data.tables import BadTable
from emx_training.data.vindr import read_vindr
from emx_training.dataset_prep import BOX_TABLES, main
from emx_training.finetune.examples import read_boxes
from emx_training.phantoms import render
from support.collections import OPENI, PADCHEST, VINDR, real_tables


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
def test_nothing_is_called_normal_that_a_reader_of_vindr_has_marked() -> None:
    """Counted from the table itself: what any of the three readers drew on an image."""
    drawn: dict[str, set[str]] = {}
    with gzip.open(VINDR, "rt", newline="") as stream:
        for row in csv.DictReader(stream):
            drawn.setdefault(row["image_id"], set()).add(row["class_name"])
    elsewhere = {"Cardiomegaly", "Aortic enlargement"}
    said: Counter[str] = Counter()
    for one in read_vindr(VINDR):
        classes = drawn[one.image.removesuffix(".png")]
        normal = classes == {"No finding"}
        assert (not one.found and not one.unlocated) == normal
        if one.uninformative:
            assert not normal
            said["left out"] += 1
            continue
        located = [
            LocatedFinding(BY_LABEL[label], "left" if BY_LABEL[label].sided else None, LocBox(1, 1, 9, 9))
            for label, _ in one.found
        ]
        report = report_of(located, one.unlocated)
        if LUNGS_CLEAR in report.findings:
            assert normal or classes <= elsewhere
        if HEART_NORMAL in report.findings:
            assert not classes & {"Cardiomegaly", "Other lesion"}
        assert (NOTHING_FOUND in report.impression) == normal
        said["normal" if normal else "boxes"] += 1
    assert said == {"normal": 10_606, "boxes": 4_186, "left out": 208}


@real_tables
def test_vindr_boxes_need_two_readers_and_get_their_side(tmp_path: Path) -> None:
    found = list(read_vindr(VINDR))
    assert len(found) == 15_000
    boxed = [one for one in found if one.found]
    assert len(boxed) > 4000
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for one in boxed[:3]:
        Image.effect_noise((3500, 3500), 40).save(images / one.image)
    table = tmp_path / "first.csv"
    wanted = {one.image.removesuffix(".png") for one in boxed[:3]}
    table.write_text(_only(VINDR, wanted))
    main(["vindr", "--table", str(table), "--images", str(images), "--output", str(output), "--size", "256"])
    rows = _boxes(output)
    assert len(rows) == sum(len(one.found) + len(one.unlocated) for one in boxed[:3])
    for row in (row for row in rows if row["xmin"]):
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
    patients = ["--patients", str(_patients(tmp_path, "a.png"))] if collection == "padchest-gr" else []
    with pytest.raises(SystemExit, match=expected):
        main([collection, "--table", str(table), *patients, "--dry-run"])


def test_padchest_gr_gives_the_boxes_of_findings_that_the_vocabulary_has(tmp_path: Path) -> None:
    def finding(abnormal: bool, labels: list[str], boxes: list[list[float]]) -> dict[str, object]:
        return {"sentence_en": "…", "abnormal": abnormal, "labels": labels, "boxes": boxes, "extra_boxes": boxes}

    heart, effusion, scar = [0.3, 0.5, 0.7, 0.8], [0.1, 0.7, 0.3, 0.9], [0.2, 0.2, 0.3, 0.3]
    entries = [
        {"ImageID": "a.png", "findings": [finding(True, ["cardiomegaly"], [heart]),
                                          finding(True, ["loculated pleural effusion"], [effusion]),
                                          finding(False, ["pneumothorax"], [])]},
        {"ImageID": "normal.png", "findings": [finding(False, ["pleural effusion"], [])]},
        {"ImageID": "other.png", "findings": [finding(True, ["obesity"], [scar])]},
        {"ImageID": "besides.png", "findings": [finding(True, ["cardiomegaly"], [heart]),
                                                finding(True, ["pneumonia"], []),
                                                finding(True, ["obesity"], [scar])]},
        {"ImageID": "unsaid.png", "findings": []},
    ]  # fmt: skip
    table, images, output = tmp_path / "grounded.json", tmp_path / "images", tmp_path / "out"
    table.write_text(json.dumps(entries))
    images.mkdir()
    for entry in entries:
        Image.effect_noise((200, 400), 40).save(images / str(entry["ImageID"]))
    patients = _patients(tmp_path, *(str(entry["ImageID"]) for entry in entries))
    tables = ["--table", str(table), "--patients", str(patients)]
    main(["padchest-gr", *tables, "--images", str(images), "--output", str(output)])
    rows = _boxes(output)
    assert [(row["image"], row["term"]) for row in rows] == [
        ("images/a.png", "cardiomegaly"),
        ("images/a.png", "pleural effusion right"),
        ("images/normal.png", ""),
        ("images/besides.png", "cardiomegaly"),
        ("images/besides.png", "pneumonia"),
        ("images/besides.png", "other"),
    ]
    assert {row["image"] for row in _rows(output / "skipped.csv")} == {"other.png", "unsaid.png"}
    assert [float(rows[1][side]) for side in ("xmin", "ymin", "xmax", "ymax")] == effusion


def test_a_table_of_ones_own_may_use_synonyms_and_pixels(tmp_path: Path) -> None:
    table, images, output = tmp_path / "boxes.csv", tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for name in ("one.jpg", "two.png", "wide.png", "whole.png", "unclear.png"):
        Image.effect_noise((200, 400), 40).convert("RGB").save(images / name)
    table.write_text(
        "image,label,xmin,ymin,xmax,ymax\none.jpg,Lung nodule,150,100,170,120\ntwo.png,,,,,\n"
        "wide.png,cardiomegaly,10,10,300,50\n"
        "whole.png,Lung nodule,150,100,170,120\nwhole.png,effusion,,,,\nwhole.png,,,,,\n"
        "unclear.png,other,,,,\n"
    )
    main(["boxes", "--table", str(table), "--images", str(images), "--output", str(output)])
    rows = _boxes(output)
    assert sorted((row["image"], row["term"], row["xmin"], row["ymax"]) for row in rows) == [
        ("images/one.png", "nodule left", "0.75000", "0.30000"),
        ("images/one.png", "other", "", ""),  # nobody has said that there is nothing else
        ("images/two.png", "", "", ""),
        ("images/whole.png", "nodule left", "0.75000", "0.30000"),
        ("images/whole.png", "pleural effusion", "", ""),
    ]
    skipped = {row["image"]: row["reason"] for row in _rows(output / "skipped.csv")}
    assert skipped["wide.png"].startswith("a box of cardiomegaly reaches beyond the image")
    assert skipped["unclear.png"] == "no box to learn from, and not known to be normal: other"
    tables = [output / table for table in BOX_TABLES.values() if (output / table).exists()]
    examples = [example for table in tables if _rows(table) for example in read_boxes(table, output)]
    one, two, whole = (example.answer[0][0] for example in sorted(examples, key=lambda one: one.image.name))
    assert HEART_NORMAL not in one and LUNGS_CLEAR not in one
    assert HEART_NORMAL in two and LUNGS_CLEAR in two
    assert HEART_NORMAL in whole and LUNGS_CLEAR not in whole


def test_a_patients_images_are_in_one_split_in_both_phases(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    names = [f"{patient}-{number}.png" for patient in range(40) for number in range(2)]
    for name in names:
        Image.effect_noise((32, 32), 40).save(images / name)
    table = tmp_path / "boxes.csv"
    rows = (f"{name},nodule,1,1,9,9,{name.partition('-')[0]}\n" for name in names)
    table.write_text("image,label,xmin,ymin,xmax,ymax,patient\n" + "".join(rows))
    main(["boxes", "--table", str(table), "--images", str(images), "--output", str(tmp_path / "out")])
    counts = json.loads((tmp_path / "out" / "summary.json").read_text())["counts"]
    assert counts["train"] > 4 * counts["validation"] > 0 < counts["test"]
    for split, file in BOX_TABLES.items():
        rows_of = list(_rows(tmp_path / "out" / file))
        digests = {(Path(row["image"]).stem.partition("-")[0], row["patient"]) for row in rows_of}
        assert len(digests) == len({patient for patient, _ in digests}) == len({digest for _, digest in digests})
        found = {Path(row["image"]).stem for row in rows_of}
        assert found == {f"{patient}-{number}" for patient in range(40) for number in range(2)
                         if split_of(str(patient)) == split}  # fmt: skip


def test_a_split_without_images_has_no_table(tmp_path: Path) -> None:
    """Else training would take an empty table for the one to validate with."""
    images, table = tmp_path / "images", tmp_path / "boxes.csv"
    images.mkdir()
    of_split = {split_of(str(number)): str(number) for number in range(100)}
    for split in ("validation", "train"):
        Image.effect_noise((32, 32), 40).save(images / f"{split}.png")
        table.write_text(f"image,label,xmin,ymin,xmax,ymax,patient\n{split}.png,,,,,,{of_split[split]}\n")
        main(["boxes", "--table", str(table), "--images", str(images), "--output", str(tmp_path / "out")])
    assert {path.name for path in (tmp_path / "out").glob("boxes*.csv")} == {"boxes.csv"}


def test_padchest_gr_has_the_splits_of_padchest(tmp_path: Path) -> None:
    entry = {"sentence_en": "…", "abnormal": False}
    entries = [{"ImageID": f"{number}.png", "findings": [entry]} for number in range(60)]
    table = tmp_path / "grounded.json"
    table.write_text(json.dumps(entries))
    patients = _patients(tmp_path, *(str(one["ImageID"]) for one in entries))
    for one in read_padchest_gr(table, patients):
        source = SourceImage("id", one.image, f"p-{one.image}", "A.", "B.", ())
        assert one.split == source.split
    with pytest.raises(BadTable, match=r"image 1: 0\.png isn't in"):
        list(read_padchest_gr(table, _patients(tmp_path, "another.png")))


@real_tables
def test_a_dry_run_counts_what_the_tables_give(capsys: pytest.CaptureFixture[str]) -> None:
    main(["vindr", "--table", str(VINDR), "--dry-run"])
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert counts["images"] == sum(counts[split] for split in ("train", "validation", "test")) == 14_792
    assert counts["normal"] == 10_606
    assert sum(counts["left out"].values()) == 208
    assert counts["boxes by finding"]["nodule or mass"] > counts["images by finding"]["nodule or mass"] > 300
    main(["padchest", "--table", str(PADCHEST), "--dry-run"])
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert counts["images"] == 23_507
    assert counts["images"] + sum(counts["left out"].values()) == 160_861
    with pytest.raises(SystemExit):
        main(["padchest", "--table", str(PADCHEST)])
    assert "give --images and --output, or --dry-run" in capsys.readouterr().err


INDIANA_REPORTS = """uid,MeSH,Problems,image,indication,comparison,findings,impression
1,normal,normal,PA and Lateral,Positive TB test,None.,"The heart is normal in size. The XXXX are clear.",\
Normal chest x-XXXX. No acute disease.
2,Cardiomegaly,Cardiomegaly,PA and lateral,Preop,,Borderline cardiomegaly. Clear lungs.,No acute findings.
3,normal,normal,PA and lateral,Pain,None.,,Normal chest.
"""
INDIANA_PROJECTIONS = """uid,filename,projection
1,1_IM-0001-4001.dcm.png,Frontal
1,1_IM-0001-3001.dcm.png,Lateral
2,2_IM-0652-1001.dcm.png,Frontal
2,2_IM-0652-1002.dcm.png,Frontal
3,3_IM-1384-1001.dcm.png,Frontal
"""


def test_kaggles_tables_of_open_i_give_its_frontal_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the columns and with the paths of kaggle.com/datasets/raddar/chest-xrays-indiana-university."""
    reports, projections = tmp_path / "indiana_reports.csv", tmp_path / "indiana_projections.csv"
    reports.write_text(INDIANA_REPORTS)
    projections.write_text(INDIANA_PROJECTIONS)
    folder = tmp_path / "images" / "images_normalized"
    folder.mkdir(parents=True)
    for row in _rows(projections):
        Image.effect_noise((32, 32), 40).save(folder / row["filename"])
    tables = ["--reports", str(reports), "--projections", str(projections)]
    for images in (folder, tmp_path / "images"):
        output = tmp_path / images.name / "out"
        main(["openi", *tables, "--images", str(images), "--output", str(output)])
        rows = [row for split in ("train", "validation", "test") for row in _rows(output / f"{split}.csv")]
        assert sorted(row["image"] for row in rows) == [
            "images/1_IM-0001-4001.png", "images/2_IM-0652-1001.png", "images/2_IM-0652-1002.png"
        ]  # fmt: skip
        text = {row["image"]: (row["findings"], row["impression"]) for row in rows}
        assert text["images/1_IM-0001-4001.png"] == ("The heart is normal in size.", "No acute disease.")
    capsys.readouterr()
    main(["openi", *tables, "--dry-run"])
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert counts["left out"] == {"not frontal": 1, "report without findings or impression": 1}
    with pytest.raises(SystemExit, match=r"give indiana_projections\.csv, too"):
        main(["openi", "--reports", str(reports), "--dry-run"])


@real_tables
def test_a_report_of_open_i_is_in_one_split_however_it_is_published(tmp_path: Path) -> None:
    reports, projections = tmp_path / "indiana_reports.csv", tmp_path / "indiana_projections.csv"
    reports.write_text(INDIANA_REPORTS)
    projections.write_text(INDIANA_PROJECTIONS)
    of_xml = {one.patient: one.split for one in read_openi(OPENI)}
    of_tables = {one.patient: one.split for one in read_openi(reports, projections)}
    assert of_tables["2"] == of_xml["2"]
    assert set(of_tables) <= {str(number) for number in range(1, 4000)} >= set(of_xml)


def test_a_missing_image_folder_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="There is no folder"):
        main(["padchest", "--table", "t", "--images", str(tmp_path / "none"), "--output", str(tmp_path)])


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _boxes(output: Path) -> list[dict[str, str]]:
    return [row for table in BOX_TABLES.values() if (output / table).exists() for row in _rows(output / table)]


def _patients(folder: Path, *images: str) -> Path:
    """Write PadChest's label table, as far as it says whose these images are."""
    path = folder / "patients.csv"
    path.write_text("ImageID,PatientID\n" + "".join(f"{image},p-{image}\n" for image in images))
    return path


def _only(table: Path, images: set[str]) -> str:
    lines = gzip.decompress(table.read_bytes()).decode().splitlines()
    return "\n".join([lines[0], *(line for line in lines if line.partition(",")[0] in images)]) + "\n"
