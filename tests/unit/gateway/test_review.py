"""What a reader said of a report, in words, and in each rendering."""

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from PIL import Image
from pypdf import PdfReader

from emx_gateway.renderings.html import report_html
from emx_gateway.renderings.pdf import report_pdf
from emx_gateway.renderings.phrases import review
from emx_gateway.renderings.text import as_text
from emx_shared.contracts.report import Box, Report
from emx_shared.ledger.records import FeedbackVersion, LocationVerdict, ReviewedLocation

MakeReport = Callable[..., Report]
BOX = Box(xmin=0, ymin=0, xmax=1, ymax=1)
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;"


def said(*verdicts: LocationVerdict, **more: Any) -> str:
    places = tuple(
        ReviewedLocation(verdict=each, label="mass", code="mass", box=BOX, box_normalised=BOX, colour="#000000")
        for each in verdicts
    )
    fields = {"version": 1, "reviewed_at": datetime(2026, 11, 30, 12, tzinfo=UTC), "reviewer": "AB"} | more
    return review(FeedbackVersion(**{"verdict": "agree", "locations": places} | fields))


def test_nothing_is_said_where_nobody_read_it() -> None:
    assert review(None) == ""


@pytest.mark.parametrize(
    ("verdicts", "more", "expected"),
    [
        ((), {}, "Reviewed by AB on 2026-11-30: agrees."),
        (("agreed",), {}, "Reviewed by AB on 2026-11-30: agrees; 1 finding agreed."),
        (
            ("added", "agreed", "corrected", "rejected", "agreed"),
            {"comment": "Higher."},
            "Reviewed by AB on 2026-11-30: agrees; 2 findings agreed, 1 corrected, 1 rejected, 1 added. "
            "Comment: Higher.",
        ),
        (
            ("rejected", "rejected"),
            {"verdict": "disagree", "comment": " \n"},
            "Reviewed by AB on 2026-11-30: disagrees; 2 findings rejected.",
        ),
        (
            (),
            {"comment": "One\r\n\ttwo\u2028three \u202eevil\u0007"},
            "Reviewed by AB on 2026-11-30: agrees. Comment: One two three evil",
        ),
        (
            (),
            {"reviewed_at": datetime(2026, 12, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))},
            "Reviewed by AB on 2026-11-30: agrees.",
        ),
    ],
)
def test_a_review_is_one_paragraph(verdicts: tuple[LocationVerdict, ...], more: Any, expected: str) -> None:
    assert said(*verdicts, **more) == expected


def test_text_has_it_behind_the_impression(make_report: MakeReport) -> None:
    report = make_report((64, 64))
    text = as_text(report, said("agreed"))
    assert text.index("IMPRESSION") < text.index("Reviewed by AB") < text.index("Model:")
    assert text.replace(f"REVIEW\n  {said('agreed')}\n\n", "") == as_text(report)


def test_markup_of_a_reader_stays_text(make_report: MakeReport) -> None:
    image, report = Image.new("L", (64, 64)), make_report((64, 64))
    document = report_html(image, report, said(comment=HOSTILE))
    assert "<script" not in document and "<img src=x" not in document
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in document and "&amp;lt;" in document
    assert "Review" not in report_html(image, report)


def test_a_long_comment_is_printed_whole(make_report: MakeReport) -> None:
    comment = "word " * 398 + HOSTILE[:10]
    pdf = report_pdf(Image.new("L", (64, 64)), make_report((64, 64)), said(comment=comment))
    text = " ".join(" ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages).split())
    assert "REVIEW Reviewed by AB on 2026-11-30: agrees. Comment: word word" in text
    assert text.count("word") == 398
    assert report_pdf(Image.new("L", (64, 64)), make_report((64, 64)), said(comment="x" * 2000))
