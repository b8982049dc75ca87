import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.findings import TERMS
from shared.grammar import LOC_BINS, LocatedFinding, LocBox, MalformedReport, ReportText, parse, shortest_ending

SENTENCE = st.from_regex(r"[A-Z][a-z ,]{0,30}\.", fullmatch=True)
PROSE = st.lists(SENTENCE, min_size=1, max_size=4).map(" ".join)


@st.composite
def boxes(draw: st.DrawFn) -> LocBox:
    ymin, xmin = draw(st.integers(0, LOC_BINS - 2)), draw(st.integers(0, LOC_BINS - 2))
    return LocBox(ymin, xmin, draw(st.integers(ymin + 1, LOC_BINS - 1)), draw(st.integers(xmin + 1, LOC_BINS - 1)))


@st.composite
def located(draw: st.DrawFn) -> LocatedFinding:
    finding, side = TERMS[draw(st.sampled_from(sorted(TERMS)))]
    return LocatedFinding(finding, side, draw(boxes()))


REPORTS = st.builds(ReportText, PROSE, st.lists(located(), max_size=5).map(tuple), PROSE)


@given(REPORTS)
def test_what_is_written_is_read_back(report: ReportText) -> None:
    assert parse(str(report)) == report


@given(REPORTS, st.integers(0, 100))
def test_a_report_can_be_ended_after_any_token(report: ReportText, percent: int) -> None:
    text = str(report)
    partial = text[: len(text) * percent // 100]
    partial = re.sub(r"<[^>]*$", "", partial)
    parse(partial + shortest_ending(partial))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "FINDINGS: None.",
        "FINDINGS: A.\nLOCATIONS: nothing\nIMPRESSION: B.",
        "FINDINGS: A.\nLOCATIONS: cardiomegaly <loc0010><loc0010><loc0010><loc0020>\nIMPRESSION: B.",
        "FINDINGS: A.\nLOCATIONS: cardiomegaly <loc0010><loc0010><loc1024><loc0020>\nIMPRESSION: B.",
    ],
)
def test_malformed_reports_are_refused(text: str) -> None:
    with pytest.raises(MalformedReport):
        parse(text)


@given(boxes())
def test_bins_and_fractions_agree(box: LocBox) -> None:
    assert LocBox.of_fractions(*box.fractions()) == box
