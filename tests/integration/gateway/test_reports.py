"""The report in each of its forms."""

import io

import pytest
from PIL import Image
from pypdf import PdfReader

from emx_gateway.api.report_routes import KINDS
from emx_gateway.http.negotiation import preferred
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
