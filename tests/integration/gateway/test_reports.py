"""The report in each of its forms."""

import io

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader

from emx_gateway.api.report_routes import KINDS
from emx_gateway.http.negotiation import preferred
from emx_shared.imaging import as_png, decode
from support.dicom import radiograph, ramp, written
from support.gateway import RunningGateway


@pytest.fixture(scope="module")
def finished(gateway: RunningGateway) -> str:
    """Address of a job that has its report."""
    where = str(gateway.submit(gateway.png()).headers["location"])
    gateway.read_by_a_worker(where.rpartition("/")[2])
    return where


def test_each_form_is_to_be_had_by_its_ending(gateway: RunningGateway, finished: str) -> None:
    report = gateway.client.get(f"{finished}/report.json").json()
    assert report["findings"] == "There is fluid."
    text, page, pdf, picture = (
        gateway.client.get(f"{finished}/{name}")
        for name in ("report.txt", "report.html", "report.pdf", "overlay.png")
    )
    assert "There is fluid." in text.text
    assert "There is fluid." in page.text and "default-src 'none'" in page.headers["content-security-policy"]
    assert "There is fluid." in PdfReader(io.BytesIO(pdf.content)).pages[0].extract_text()
    assert Image.open(io.BytesIO(picture.content)).size == (80, 60)
    small = gateway.client.get(f"{finished}/overlay.png", params={"longest_side": 40})
    assert Image.open(io.BytesIO(small.content)).size == (40, 30)
    for answer in (text, page, pdf, picture):
        assert answer.headers["cache-control"] == "private, no-store"


@pytest.mark.parametrize(("name", "media"), KINDS.items())
def test_each_form_is_to_be_had_by_accept(gateway: RunningGateway, finished: str, name: str, media: str) -> None:
    answer = gateway.client.get(f"{finished}/report", headers={"Accept": f"{media};q=0.9, application/xml"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == media


def test_a_form_that_there_is_not_is_no_answer(gateway: RunningGateway, finished: str) -> None:
    answer = gateway.client.get(f"{finished}/report", headers={"Accept": "application/xml"})
    gateway.problem(answer, 406, "not-acceptable")


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        ("*/*", "json"),
        ("", None),
        ("text/*", "txt"),
        ("text/*;q=0.5, text/html", "html"),
        ("text/html;q=0, text/*", "txt"),
        ("image/png, */*;q=0.1", "png"),
        ("application/pdf;q=0.2, text/html;q=0.1", "pdf"),
        (";;;,,q=", None),
        ("application/xml", None),
    ],
)
def test_the_header_is_read_as_the_rfc_says(accept: str, name: str | None) -> None:
    assert preferred(accept, KINDS) == name


def sent(gateway: RunningGateway, data: bytes) -> str:
    return f"{gateway.submit(data).headers['location']}/image.png"


def test_the_image_is_given_with_16_bits_and_the_window_that_shows_it(gateway: RunningGateway) -> None:
    elements = {"PixelSpacing": [0.2, 0.1], "PatientOrientation": ["R", "F"], "WindowCenter": [2000, 900]}
    data = written(radiograph(ramp(12), 12, **elements, WindowWidth=[500, 400]))
    where = sent(gateway, data)
    eight, deep = (gateway.client.get(where, params={"depth": depth}) for depth in (8, 16))
    assert gateway.client.get(where).content == eight.content == as_png(decode(data))
    assert deep.headers["content-type"] == "image/png" and deep.headers["cache-control"] == "private, no-store"
    picture, small = (Image.open(io.BytesIO(answer.content)) for answer in (deep, eight))
    assert (picture.mode, small.mode) == ("I;16", "L")
    assert picture.info.keys() == {"Window", "Windows", "PixelSpacing", "PixelSpacingFrom"}
    assert small.info == {"PixelSpacing": "0.2 0.1", "PixelSpacingFrom": "PixelSpacing"}
    center, width = map(float, picture.info["Window"].split())
    greys = np.clip((np.asarray(picture) - center) / width + 0.5, 0, 1) * 255
    assert np.abs(greys - np.asarray(small)).max() <= 1
    for text in (b"Doe", b"Jane", b"SECRET"):
        assert text not in deep.content + eight.content


def test_each_depth_has_a_tag_of_its_own(gateway: RunningGateway) -> None:
    where = sent(gateway, gateway.png())
    eight, deep = (gateway.client.get(where, params={"depth": depth}) for depth in (8, 16))
    assert eight.content == deep.content  # of 8 bits there are no more
    assert gateway.client.get(where).headers["etag"] == eight.headers["etag"] != deep.headers["etag"]
    had = {"If-None-Match": deep.headers["etag"]}
    assert gateway.client.get(where, params={"depth": 16}, headers=had).status_code == 304
    assert gateway.client.get(where, params={"depth": 8}, headers=had).status_code == 200


@pytest.mark.parametrize("depth", ["12", "x", "", "8.5"])
def test_another_depth_is_refused(gateway: RunningGateway, depth: str) -> None:
    answer = gateway.client.get(sent(gateway, gateway.png()), params={"depth": depth})
    gateway.problem(answer, 422, "invalid-request")
    assert answer.json()["errors"] == [{"where": "query.depth", "what": "Input should be 8 or 16"}]
