"""What training learns of a reader's feedback, and what it must not take for known."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from emx_gateway.services.feedback_export import box_table, coco_file, reviewed_image
from emx_shared.contracts.report import Box, Location, Report
from emx_shared.ledger.records import FeedbackVersion, JobRecord, ReviewedLocation

MakeReport = Callable[..., Report]
AT = datetime(2026, 11, 30, tzinfo=UTC)
BOX = Box(xmin=0, ymin=0, xmax=32, ymax=32)
HALF = Box(xmin=0, ymin=0, xmax=0.5, ymax=0.5)


def place(verdict: Any, of: int | None, label: str = "mass", laterality: Any = "left") -> ReviewedLocation:
    return ReviewedLocation(
        of=of,
        verdict=verdict,
        label=label,
        code=label,
        laterality=laterality,
        box=BOX,
        box_normalised=HALF,
        colour="#000000",
    )


def rows(report: Report, verdict: Any, *places: ReviewedLocation) -> list[str]:
    """Return the rows of an image without its name and patient; nothing where it is left out."""
    job = JobRecord(id="j", submitted_at=AT)
    version = FeedbackVersion(version=1, reviewed_at=AT, reviewer="AB", verdict=verdict, locations=places)
    image = reviewed_image(job, report, version)
    if not image.usable:
        return []
    _, *table = b"".join(box_table(iter([image]))).decode().splitlines()
    assert len(coco_file(iter([image])).annotations) == len(image.boxes)
    return [row.removeprefix("j.png,").removesuffix(",") for row in table]


NORMAL, BOXED, ANYTHING = ",,,,", "mass left,0.0,0.0,0.5,0.5", "other,,,,"
ADDED = place("added", None)


@pytest.mark.parametrize(
    ("verdict", "places", "expected"),
    [
        ("agree", (), [NORMAL]),
        ("disagree", (), []),
        ("agree", (ADDED,), [BOXED]),
        ("disagree", (ADDED,), [BOXED]),
    ],
)
def test_a_report_without_findings(
    make_report: MakeReport, verdict: str, places: Any, expected: list[str]
) -> None:
    assert rows(make_report((64, 64)), verdict, *places) == expected


@pytest.mark.parametrize(("places", "expected"), [((), []), ((ADDED,), [BOXED])])
def test_an_image_that_the_model_declined_is_not_normal(
    make_report: MakeReport, places: Any, expected: list[str]
) -> None:
    for verdict in ("agree", "disagree"):
        assert rows(make_report((64, 64), abstained=True), verdict, *places) == expected


def test_what_nobody_reviewed_is_named_once_without_its_side(make_report: MakeReport) -> None:
    report = make_report((64, 64), [(0, 0, 9, 9)] * 3)  # cardiomegaly and two others
    labels = [each.label for each in report.locations]
    twice = report.model_copy(update={"locations": (*report.locations, report.locations[2])})
    assert rows(twice, "agree", place("agreed", 1)) == [BOXED, f"{labels[0]},,,,", f"{labels[2]},,,,"]
    assert rows(twice, "agree", place("rejected", 1)) == []
    assert rows(report, "agree", *(place("rejected", number) for number in range(3))) == [NORMAL]


@pytest.mark.parametrize(
    ("label", "laterality", "expected"),
    [("gout", None, ANYTHING), ("mass", None, "mass,,,,"), ("cardiomegaly", "left", "cardiomegaly,,,,")],
)
def test_a_finding_that_is_no_term_is_neither_reported_nor_denied(
    make_report: MakeReport, label: str, laterality: Any, expected: str
) -> None:
    """A reader may agree with what a report of another vocabulary says."""
    old = make_report((64, 64), [(0, 0, 9, 9)]).locations[0]
    told = Location(**{**old.model_dump(), "label": label, "laterality": laterality})
    report = make_report((64, 64), locations=(told,))
    assert rows(report, "agree", place("agreed", 0, label, laterality), ADDED) == [BOXED, expected]
    assert rows(report, "agree", place("agreed", 0, label, laterality)) == []
    assert rows(report, "agree", ADDED) == [BOXED, "other,,,," if label == "gout" else f"{label},,,,"]


def test_a_disagreement_without_a_correction_leaves_all_else_open(make_report: MakeReport) -> None:
    report = make_report((64, 64), [(0, 0, 9, 9)])
    assert rows(report, "disagree", place("agreed", 0)) == [BOXED, ANYTHING]
    assert rows(report, "agree", place("agreed", 0)) == [BOXED]
    assert rows(report, "disagree", place("corrected", 0)) == [BOXED]
