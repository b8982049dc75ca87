import io
from collections.abc import Callable

import pytest
from PIL import Image
from pypdf import PdfReader

from emx_gateway.renderings.pdf import report_pdf
from emx_shared.contracts.report import DISCLAIMER, ModelProvenance, Report

MakeReport = Callable[..., Report]


def read(pdf: bytes) -> tuple[PdfReader, str]:
    """The file and its text, with single spaces."""
    reader = PdfReader(io.BytesIO(pdf), strict=True)
    return reader, " ".join(" ".join(page.extract_text() for page in reader.pages).split())


def test_the_file_holds_the_whole_report(
    make_report: MakeReport, make_model: Callable[..., ModelProvenance]
) -> None:
    told = make_report(
        (400, 300),
        [(10, 20, 110, 220), (200, 30, 390, 290)],
        warnings=("Take care.",),
        model=make_model(demo=True),
    )
    reader, text = read(report_pdf(Image.new("L", (400, 300)), told))
    for said in (
        *("FINDINGS", told.findings, "LOCATIONS", "IMPRESSION", told.impression, "Take care.", "Demo model"),
        *("cardiomegaly", "pleural effusion left x 200–390, y 30–290 82 %", DISCLAIMER, "not for clinical use"),
        *("some/model, revision abc123", "2026-03-04 05:06:07 UTC", "Page 1 of 1"),
    ):
        assert said in text, said
    assert len(reader.pages) == 1
    assert [round(float(side) * 25.4 / 72) for side in reader.pages[0].mediabox[2:]] == [210, 297]
    assert len(reader.pages[0].images) == 1


def test_many_findings_fit_two_pages_with_the_disclaimer_on_each(make_report: MakeReport) -> None:
    told = make_report(
        (3000, 2000), [(n, n, n + 500, n + 500) for n in range(16)], findings="The heart is enlarged. " * 40
    )
    reader, text = read(report_pdf(Image.new("L", (3000, 2000)), told))
    assert len(reader.pages) == 2
    assert all(DISCLAIMER in " ".join(page.extract_text().split()) for page in reader.pages)
    assert text.count("82 %") == 16


def test_a_declined_image_is_called_not_read(make_report: MakeReport) -> None:
    told = make_report((64, 64), abstained=True, warnings=("No chest.",))
    _, text = read(report_pdf(Image.new("L", (64, 64)), told))
    assert "NOT READ" in text and "No chest." in text and "not assessed" in text


def test_any_character_can_be_printed(make_report: MakeReport) -> None:
    everything = "".join(
        map(chr, [*range(0x600), 0x200B, 0x202E, 0x2013, 0x2019, 0x2264, 0x80BA, 0x1F600, 0xD800])
    )
    told = make_report((64, 64), [(1, 1, 9, 9)], impression="œdème – l’aorte ≤ 4 cm, łódź 肺")
    place = told.locations[0].model_copy(update={"label": everything})
    told = told.model_copy(update={"findings": everything, "locations": (place,), "warnings": (everything,)})
    _, text = read(report_pdf(Image.new("L", (64, 64)), told))
    assert "œdème – l’aorte <= 4 cm, lódz ?" in text


def test_long_warnings_move_the_picture_to_the_next_sheet(make_report: MakeReport) -> None:
    told = make_report((64, 64), warnings=("Take care. " * 30,) * 14)
    reader, _ = read(report_pdf(Image.new("L", (64, 64)), told))
    assert [len(page.images) for page in reader.pages] == [0, 1]


def test_one_word_longer_than_the_sheet_is_broken(make_report: MakeReport) -> None:
    told = make_report((64, 64), [(1, 1, 9, 9)], findings="x" * 3000)
    place = told.locations[0].model_copy(update={"label": "y" * 300})
    _, text = read(report_pdf(Image.new("L", (64, 64)), told.model_copy(update={"locations": (place,)})))
    assert text.count("x") >= 3000 and text.count("y") >= 300


def test_the_same_report_gives_the_same_bytes_and_no_word_of_the_file(make_report: MakeReport) -> None:
    image = Image.new("L", (300, 200))
    image.info["comment"] = b"Jane Doe"
    told = make_report((300, 200), [(1, 1, 90, 90)])
    pdf = report_pdf(image, told)
    assert pdf == report_pdf(image, told)
    assert b"Jane" not in pdf
    metadata = read(pdf)[0].metadata
    assert metadata is not None and metadata.title == "Chest radiograph report"
    assert metadata.creation_date == told.created_at
    assert set(metadata) <= {"/Title", "/Subject", "/Author", "/Creator", "/Producer", "/CreationDate"}


@pytest.mark.parametrize("size", [(32, 32), (33, 2000), (2000, 33), (8000, 6000)])
def test_any_image_is_put_on_one_sheet(size: tuple[int, int], make_report: MakeReport) -> None:
    reader, _ = read(report_pdf(Image.new("L", size), make_report(size, [(0, 0, *size), (0, 0, 0.1, 0.1)])))
    assert len(reader.pages) == 1
