"""The probability of a finding is that of the words that decided on it."""

import re

import pytest

from emx_shared.contracts.findings import TERMS
from emx_shared.grammar import LOC, Box2dNotation, LocatedFinding, LocBox, ReportText
from emx_worker.engine.confidence import finding_probabilities

BOX = LocBox(1, 2, 3, 4)
PIECE = re.compile(r"<loc\d{4}>| ?[A-Za-z]+|.|\n", re.DOTALL)


def report_text(findings: str, *terms: str) -> ReportText:
    return ReportText(findings, tuple(LocatedFinding(*TERMS[term], BOX) for term in terms), "Something.")


def probabilities(report: ReportText, **odds: float) -> tuple[float, ...]:
    """Compute them for a model that writes a word a token, with these odds; ``_`` is the space before a word."""
    pieces = PIECE.findall(str(report))
    assert "".join(pieces) == str(report)
    each = [odds.get(piece.replace(" ", "_"), 1.0) for piece in pieces]
    return finding_probabilities(report, LOC.finding_spans(str(report)), pieces, each)


def test_the_sentence_decides_from_its_first_token_to_the_last_that_names() -> None:
    report = report_text("The heart size is normal. There is a mass in the left mid zone.", "mass left")
    assert probabilities(report, _There=0.5) == (0.5,)
    assert probabilities(report, _mass=0.5, _left=0.5) == (0.25,)
    assert probabilities(report, _mid=0.1, _zone=0.1, _normal=0.1, Something=0.1) == (1,)
    assert probabilities(report, **{"<loc0001>": 0.1}) == (1,)


def test_each_finding_has_its_own_sentence() -> None:
    report = report_text("There is a left pneumothorax. There is a left mass.", "pneumothorax left", "mass left")
    assert probabilities(report, _pneumothorax=0.5, _mass=0.25) == (0.5, 0.25)


def test_a_decimal_point_ends_no_sentence() -> None:
    report = report_text("There is a 1.8 cm mass, approx. 3 cm from the left hilum. Clear.", "mass left")
    assert probabilities(report, _There=0.5, _left=0.25) == (0.125,)


def test_a_sentence_of_the_other_side_does_not_name_it() -> None:
    report = report_text("There is a right mass. One mass is left.", "mass right", "mass left")
    assert probabilities(report, _right=0.5, _left=0.25) == (0.5, 0.25)


def test_findings_of_one_term_take_the_sentences_in_turn_and_then_the_last() -> None:
    report = report_text("A left nodule. Another left nodule.", *["nodule left"] * 3)
    assert probabilities(report, _A=0.5, _Another=0.25) == (0.5, 0.25, 0.25)


def test_a_synonym_names_in_any_order_of_words() -> None:
    assert probabilities(report_text("The heart is enlarged.", "cardiomegaly"), _enlarged=0.25) == (0.25,)


def test_what_no_sentence_names_is_decided_in_locations() -> None:
    report = report_text("Something.", "mass left", "nodule right")
    assert probabilities(report, _mass=0.5, _left=0.5, **{"<loc0001>": 0.1}) == (0.25, 1)
    assert probabilities(report, **{";": 0.5, "_nodule": 0.5}) == (1, 0.25)


def test_in_json_the_box_precedes_the_term_and_does_not_count_either() -> None:
    locations = (
        '[{"box_2d": [1, 2, 3, 4], "label": "mass left"}, {"box_2d": [5, 6, 7, 8], "label": "nodule right"}]'
    )
    text = f"FINDINGS: Something.\nLOCATIONS: {locations}\nIMPRESSION: Something."
    notation, pieces = Box2dNotation(), re.findall(r"\d|[A-Za-z]+|.|\n", text, re.DOTALL)
    report, finding_spans = notation.parse(text), notation.finding_spans(text)

    def with_odds(**odds: float) -> tuple[float, ...]:
        return finding_probabilities(report, finding_spans, pieces, [odds.get(piece, 1.0) for piece in pieces])

    assert with_odds(left=0.5, nodule=0.25) == (0.5, 0.25)
    assert with_odds(**dict.fromkeys("13468", 0.5)) == (1, 1)
    assert with_odds(label=0.5, IMPRESSION=0.5) == (1, 1)
    assert with_odds(**{"{": 0.5}) == (0.5, 0.5)


def test_tokens_across_the_edges_of_a_span_count() -> None:
    report = report_text("Odd. A left mass grows.", "mass left")
    pieces = ["FINDINGS: Odd", ". A l", "ef", "t ma", "ss gr", "ows.", str(report).partition("ows.")[2], ""]
    odds = [0.1, 0.5, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1]
    assert finding_probabilities(report, LOC.finding_spans(str(report)), pieces, odds) == (pytest.approx(1 / 16),)


def test_a_report_without_findings_has_no_probabilities() -> None:
    assert probabilities(report_text("Nothing.")) == ()
