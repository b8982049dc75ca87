import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emx_shared.contracts.findings import TERMS
from emx_shared.grammar import (
    LOC,
    LOC_BINS,
    Box2dNotation,
    ImageFrame,
    LocatedFinding,
    LocBox,
    MalformedReport,
    ReportText,
    as_prose,
    first_refused,
    is_prose,
    parse,
    sentences,
)

PROSE = st.from_regex(LOC.prose, fullmatch=True)


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
    partial = re.sub(r"<l?o?c?\d*$", "", partial) if "\nLOCATIONS" in partial else partial
    parse(partial + LOC.shortest_ending(partial))


@pytest.mark.parametrize(
    "text",
    [
        "The nodule measures 1.8 cm.",
        "5-6 mm (<1 cm), 20 %, 30°, 1/2, >3.",
        '1. "Stable". 2. T.B. was excluded?',
        "Opacité à gauche – µ ≥ 2",
        "A",
    ],
)
def test_what_radiologists_write_is_prose(text: str) -> None:
    assert is_prose(text) and as_prose(text) == text and first_refused(text) is None
    assert parse(str(ReportText(text, (), text))) == ReportText(text, (), text)


@pytest.mark.parametrize(
    "prose", ["", "<", "< ", "< <", "< < ", "A < <", "<=", "A <", "A < ", "A <5", "A.", "A. ", "1.", "é"]
)
def test_a_report_can_be_ended_anywhere_in_its_prose(prose: str) -> None:
    for partial in (f"FINDINGS: {prose}", f"FINDINGS: A.\nLOCATIONS: none\nIMPRESSION: {prose}"):
        parse(partial + LOC.shortest_ending(partial))


@pytest.mark.parametrize(
    ("text", "character"),
    [
        ("A {b}.", "{"),
        ("A <loc0001>", "<"),
        ("{", "{"),
        ("A <BR> b", "<"),
        ("ends <", "<"),
        ("影", "影"),
        ("a\\b", "\\"),
    ],
)
def test_what_no_report_can_hold_is_named(text: str, character: str) -> None:
    assert not is_prose(text) and first_refused(text) == character
    with pytest.raises(MalformedReport):
        parse(str(ReportText(text, (), "A.")))


def test_a_text_is_put_on_one_line() -> None:
    assert as_prose(" Ope\u0301ra\u00a0tive\r\n 1.8\u200b cm ") == "Opéra tive 1.8 cm"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Clear. Heart is 1.8 cm. 2 nodules.", ["Clear.", "Heart is 1.8 cm.", "2 nodules."]),
        (
            "1. None. 2. T.B. was (approx. 5 cm) stable! Seen by Dr. Who?",
            ["1. None.", "2. T.B. was (approx. 5 cm) stable!", "Seen by Dr. Who?"],
        ),
        ('"Stable." Clear', ['"Stable."', "Clear"]),
        ("Large vs. small. Étude normale.", ["Large vs. small.", "Étude normale."]),
        ("", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[begin:end] for begin, end in sentences(text)] == expected


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


@st.composite
def frames(draw: st.DrawFn) -> ImageFrame:
    """Draw frames of images of any shape, very thin images among them."""
    return ImageFrame.padded(draw(st.integers(1, 5000)), draw(st.integers(1, 5000)))


@st.composite
def reports_in_json(draw: st.DrawFn) -> tuple[ImageFrame, str]:
    frame, listed = draw(frames()), []
    for _ in range(draw(st.integers(0, 4))):
        edges = [draw(st.sampled_from(frame.numbers(axis)[:-1])) for axis in (0, 1)]
        edges += [draw(st.integers(low + 1, frame.numbers(axis)[-1])) for axis, low in enumerate(edges)]
        listed.append(f'{{"box_2d": {edges}, "label": "{draw(st.sampled_from(sorted(TERMS)))}"}}')
    return frame, f"FINDINGS: {draw(PROSE)}\nLOCATIONS: [{', '.join(listed)}]\nIMPRESSION: {draw(PROSE)}"


@given(reports_in_json())
def test_locations_in_json_are_json_and_are_on_the_image(written: tuple[ImageFrame, str]) -> None:
    frame, text = written
    report = Box2dNotation(frame).parse(text)
    listed = json.loads(text.partition("LOCATIONS: ")[2].partition("\n")[0])
    assert [found.term for found in report.locations] == [entry["label"] for entry in listed]
    for found, entry in zip(report.locations, listed, strict=True):
        ymin, xmin, ymax, xmax = (v / 1000 for v in entry["box_2d"])
        top, left, bottom, right = found.box.fractions()
        height, width = frame.ymax - frame.ymin, frame.xmax - frame.xmin
        for on_image, in_square, low, extent in (
            (top, ymin, frame.ymin, height),
            (bottom, ymax, frame.ymin, height),
            (left, xmin, frame.xmin, width),
            (right, xmax, frame.xmin, width),
        ):
            expected = min(max((in_square - low) / extent, 0), 1)
            assert on_image == pytest.approx(expected, abs=1.01 / (LOC_BINS - 1))  # a bin at most


@given(reports_in_json(), st.data())
def test_a_report_in_json_can_be_ended_after_any_character(
    written: tuple[ImageFrame, str], data: st.DataObject
) -> None:
    frame, text = written
    notation = Box2dNotation(frame)
    partial = text[: data.draw(st.integers(0, len(text)))]
    ended = notation.parse(partial + notation.shortest_ending(partial))
    whole = notation.complete_locations(partial)
    assert ended.locations[:whole] == notation.parse(text).locations[:whole]
    assert len(ended.locations) - whole in (0, 1)


@pytest.mark.parametrize(
    "box",
    ["10, 10, 10, 20", "10, 20, 30, 20", "1000, 0, 1000, 5", "0, 0, 10, 199", "0, 801, 10, 900", "01, 2, 3, 4"],
)
def test_numbers_that_are_no_valid_box_on_the_image_are_refused(box: str) -> None:
    """An image of 120 × 200 pixels is from 200 to 800 on the x axis of the square."""
    notation = Box2dNotation(ImageFrame.padded(120, 200))
    entry = '{"box_2d": [%s], "label": "mass left"}'
    text = "FINDINGS: A.\nLOCATIONS: [%s]\nIMPRESSION: B."
    with pytest.raises(MalformedReport):
        notation.parse(text % (entry % box))
    if "01" not in box:
        both = text % f"{entry % box}, {entry % '0, 300, 500, 500'}"
        usable, left_out = notation.parse_usable(both)
        assert (len(usable.locations), left_out) == (1, 1)
