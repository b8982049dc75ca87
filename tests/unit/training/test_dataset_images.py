"""Originals of every kind in data preparation: where they are found, and where their boxes are."""

import csv
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import uid

from emx_training.data.image_folder import ImageFolder, prepared_names, stem_of
from emx_training.data.padchest import read_padchest
from emx_training.data.padchest_gr import read_padchest_gr
from emx_training.data.prepared_images import CorruptImage
from emx_training.dataset_prep import BOX_TABLES, main
from support.dicom import radiograph, ramp, written

VINDR_HEADER = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"
BOX_HEADER = "image,label,xmin,ymin,xmax,ymax\n"
MARK = "\N{BYTE ORDER MARK}"


def vindr_file() -> bytes:
    """A file as VinDr-CXR is published: no Modality, no SOPClassUID, JPEG 2000, 64×48 pixels."""
    ds = radiograph(ramp(12), 12, WindowCenter="2000", WindowWidth="3000")
    for element in ("Modality", "BodyPartExamined", "PatientName", "PatientID"):
        delattr(ds, element)
    ds.compress(uid.JPEG2000Lossless)
    data = written(ds, uid.JPEG2000Lossless)
    at = data.index(b"\x08\x00\x16\x00UI", 300)
    return data[:at] + data[at + 8 + struct.unpack_from("<H", data, at + 6)[0] :]


def prepared(collection: str, table: str, folder: Path) -> list[dict[str, str]]:
    (folder / "table.csv").write_text(table, encoding="utf-8")
    places = ["--images", str(folder / "images"), "--output", str(folder / "out")]
    main([collection, "--table", str(folder / "table.csv"), *places])
    return [row for split in BOX_TABLES.values() for row in rows_of(folder / "out" / split)]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def save_turned(path: Path, view: Image.Image, orientation: int) -> None:
    """Save a JPEG whose stored pixels EXIF turns to ``view``."""
    back = {6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    view.transpose(back[orientation]).save(path, "JPEG", exif=exif, quality=95)


@pytest.mark.parametrize("place", ["", "train/", "1.0.0/train/"])
def test_vindr_is_prepared_as_published(place: str, tmp_path: Path) -> None:
    file = tmp_path / "images" / place / "0005e8e3701dfb1dd93d53e2ff537b6e.dicom"
    file.parent.mkdir(parents=True)
    file.write_bytes(vindr_file())
    rows = "".join(f"{file.stem},R{number},Cardiomegaly,16,12,48,36\n" for number in range(3))
    (row,) = prepared("vindr", VINDR_HEADER + rows, tmp_path)
    assert (row["image"], row["term"]) == (f"images/{file.stem}.png", "cardiomegaly")
    assert [float(row[side]) for side in ("xmin", "ymin", "xmax", "ymax")] == [0.25, 0.25, 0.75, 0.75]
    with Image.open(tmp_path / "out" / row["image"]) as image:
        assert image.size == (64, 48)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_boxes_are_on_the_picture_that_exif_turns(orientation: int, tmp_path: Path) -> None:
    view = Image.new("L", (200, 100))
    view.paste(255, (20, 10, 60, 50))
    (tmp_path / "images").mkdir()
    save_turned(tmp_path / "images" / "turned.jpg", view, orientation)
    (row,) = prepared("boxes", f"{BOX_HEADER}turned.jpg,nodule,20,10,60,50\nturned.jpg,,,,,\n", tmp_path)
    with Image.open(tmp_path / "out" / row["image"]) as image:
        xmin, xmax = (round(float(row[side]) * image.width) for side in ("xmin", "xmax"))
        ymin, ymax = (round(float(row[side]) * image.height) for side in ("ymin", "ymax"))
        pixels = np.asarray(image)
    assert pixels[ymin:ymax, xmin:xmax].mean() > 240
    assert pixels.mean() < 30
    assert row["term"] == "nodule right"


@pytest.mark.parametrize(
    ("orientation", "term"), [("L\\F", "nodule right"), ("R\\F", "nodule left"), ("F\\L", "")]
)
def test_boxes_of_dicom_files_are_on_their_stored_pixels(orientation: str, term: str, tmp_path: Path) -> None:
    pixels = np.zeros((48, 64), np.uint8)
    pixels[8:20, 4:16] = 255
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.dcm").write_bytes(written(radiograph(pixels, 8, PatientOrientation=orientation)))
    (row,) = prepared("boxes", f"{BOX_HEADER}a.dcm,nodule,4,8,16,20\na.dcm,,,,,\n", tmp_path)
    with Image.open(tmp_path / "out" / row["image"]) as image:
        xmin, xmax = (round(float(row[side]) * image.width) for side in ("xmin", "xmax"))
        ymin, ymax = (round(float(row[side]) * image.height) for side in ("ymin", "ymax"))
        shown = np.asarray(image)
    assert (shown[ymin:ymax, xmin:xmax] == 255).all()
    assert (shown == 255).sum() == 12 * 12
    assert row["term"] == term or not term


def test_a_second_run_decodes_nothing_and_gives_the_same_boxes(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    view = Image.effect_noise((200, 100), 40)
    save_turned(tmp_path / "images" / "turned.jpg", view, 6)
    table = f"{BOX_HEADER}turned.jpg,nodule,20,10,60,50\n"
    first = prepared("boxes", table, tmp_path)
    (tmp_path / "images" / "turned.jpg").write_bytes(b"no longer an image")
    assert prepared("boxes", table, tmp_path) == first


def test_a_table_of_normal_images_only_is_prepared(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.effect_noise((200, 100), 40).save(tmp_path / "images" / "a.png")
    assert [row["term"] for row in prepared("boxes", f"{BOX_HEADER}a.png,,,,,\n", tmp_path)] == [""]
    vindr = f"{VINDR_HEADER}a,R1,No finding,,,,\na,R2,No finding,,,,\n"
    assert [row["term"] for row in prepared("vindr", vindr, tmp_path)] == [""]


@pytest.mark.parametrize("table", [BOX_HEADER, f"{BOX_HEADER}lost.png,,,,,\n"], ids=["empty", "no file"])
def test_a_table_without_any_usable_image_is_an_error(table: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(SystemExit, match="No image could be used"):
        prepared("boxes", table, tmp_path)


def test_tables_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.effect_noise((200, 100), 40).save(tmp_path / "images" / "a.png")
    assert prepared("boxes", f"{MARK}{BOX_HEADER}a.png,nodule,1,1,9,9\n", tmp_path)
    rows = "".join(f"a,R{number},Cardiomegaly,16,12,48,36\n" for number in range(2))
    assert prepared("vindr", f"{MARK}{VINDR_HEADER}{rows}", tmp_path)
    table = tmp_path / "padchest.csv"
    header = "ImageID,ImageDir,PatientID,Projection,MethodLabel,LabelsLocalizationsBySentence\n"
    table.write_text(f"{MARK}{header}a.png,0,p,PA,Physician,\"[['normal']]\"\n", encoding="utf-8")
    assert len(list(read_padchest(table))) == 1
    grounded = tmp_path / "grounded.json"
    grounded.write_text(f'{MARK}[{{"ImageID": "a.png", "findings": []}}]', encoding="utf-8")
    assert len(list(read_padchest_gr(grounded, table))) == 1


def test_files_are_found_whatever_their_kind_and_place(tmp_path: Path) -> None:
    for name in (
        "a.PNG",
        "b.dicom",
        "deep/er/c.jpg",
        "1.2.840.5",
        "x/twice.png",
        "y/twice.jpg",
        "y/here.png",
        "here.tif",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folder = ImageFolder(tmp_path)
    found = {
        name: str(folder.find(name).relative_to(tmp_path))
        for name in ("a.png", "b", "b.png", "c.png", "1.2.840.5")
    }
    assert found == {
        "a.png": "a.PNG",
        "b": "b.dicom",
        "b.png": "b.dicom",
        "c.png": "deep/er/c.jpg",
        "1.2.840.5": "1.2.840.5",
    }
    assert folder.find("here.png") == tmp_path / "here.tif"
    with pytest.raises(CorruptImage, match="several"):
        folder.find("twice.png")
    with pytest.raises(CorruptImage, match="no such file"):
        folder.find("lost.png")


def test_every_image_is_written_to_a_file_of_its_own() -> None:
    assert prepared_names(["a.dcm", "a.png", "1.2.3", "1.2.4", "sub/a.dicom"]) == [
        "images/a.png", "images/a.png.png", "images/1.2.3.png", "images/1.2.4.png", "images/sub/a.png"
    ]  # fmt: skip
    assert stem_of("b.final.JPEG") == "b.final"
