import pytest

from emx_shared.contracts.box_table import OTHER
from emx_shared.contracts.findings import TERMS
from emx_shared.grammar import LocatedFinding, LocBox, parse
from emx_training.data.phantom_reports import HEART_NORMAL, LUNGS_CLEAR, NOTHING_FOUND, corpus, report_of

SOMEWHERE = LocBox(400, 100, 600, 300)


def located(term: str, box: LocBox = SOMEWHERE) -> LocatedFinding:
    finding, side = TERMS[term]
    return LocatedFinding(finding, side, box)


def test_every_term_has_a_report_that_parses() -> None:
    for term in TERMS:
        report = report_of([located(term)])
        assert parse(str(report)) == report


def test_findings_are_reported_in_the_vocabularys_order_and_right_before_left() -> None:
    terms = ["mass left", "nodule right", "pleural effusion left", "cardiomegaly", "pleural effusion right"]
    report = report_of([located(term) for term in terms])
    assert [str(one).split(" <")[0] for one in report.locations] == [
        "cardiomegaly",
        "pleural effusion right",
        "pleural effusion left",
        "nodule right",
        "mass left",
    ]
    assert report.impression.startswith("Cardiomegaly. Right pleural effusion. Left pleural effusion.")


def test_the_text_depends_on_the_findings_alone() -> None:
    findings = [located("nodule left"), located("cardiomegaly")]
    assert str(report_of(findings)) == str(report_of(findings[::-1]))


def test_a_normal_chest_says_so() -> None:
    report = report_of([])
    assert report.locations == ()
    assert LUNGS_CLEAR in report.findings
    assert report.impression == NOTHING_FOUND


@pytest.mark.parametrize(
    ("found", "unlocated", "normal_heart", "clear_lungs"),
    [
        (["scoliosis"], [], True, True),
        (["cardiomegaly"], [], False, True),
        (["nodule left"], [], True, False),
        (["pleural effusion left"], [], True, False),
        (["heart failure"], [], False, False),
        (["scoliosis"], ["nodule or mass"], True, False),
        (["scoliosis"], ["pleural thickening"], True, False),
        (["scoliosis"], ["cardiomegaly"], False, True),
        (["scoliosis"], [OTHER], False, False),
        (["cardiomegaly"], ["consolidation"], False, False),
    ],
)
def test_nothing_is_called_normal_that_may_not_be(
    found: list[str], unlocated: list[str], normal_heart: bool, clear_lungs: bool
) -> None:
    report = report_of([located(term) for term in found], unlocated)
    assert (HEART_NORMAL in report.findings, LUNGS_CLEAR in report.findings) == (normal_heart, clear_lungs)
    assert NOTHING_FOUND not in report.impression
    assert parse(str(report)) == report


def test_nothing_can_be_said_of_findings_without_a_box() -> None:
    with pytest.raises(ValueError, match="only unlocated"):
        report_of([], ["nodule"])


def test_a_sentence_stands_once_for_all_its_boxes() -> None:
    several = [located("pneumonia left", LocBox(400, 100 + 9 * n, 600, 300)) for n in range(3)]
    report = report_of(several)
    assert report.findings.count("pneumonia") == report.impression.count("pneumonia") == 1
    assert len(report.locations) == 3


@pytest.mark.parametrize(
    ("term", "sentence"),
    [
        ("nodule or mass left", "There is a nodule or mass in the left mid zone."),
        ("rib fracture right", "There is a right rib fracture."),
        ("endotracheal tube", "There is an endotracheal tube."),
        ("vertebral degenerative changes", "There are vertebral degenerative changes."),
        ("aortic enlargement", "There is aortic enlargement."),
        ("infiltrate right", "There is an infiltrate in the right mid zone."),
    ],
)
def test_a_finding_is_named_in_english(term: str, sentence: str) -> None:
    assert sentence in report_of([located(term)]).findings


def test_place_and_size_follow_from_the_box() -> None:
    high = report_of([located("nodule left", LocBox(200, 600, 240, 640))])
    low = report_of([located("nodule left", LocBox(600, 600, 640, 640))])
    assert "upper zone" in high.findings and "lower zone" in low.findings
    small = report_of([located("pleural effusion right", LocBox(700, 100, 800, 300))])
    large = report_of([located("pleural effusion right", LocBox(300, 100, 800, 300))])
    assert "small" in small.findings and "large" in large.findings


def test_the_corpus_covers_every_word_that_a_report_has() -> None:
    words = {word.strip(".;:") for text in corpus() for word in text.split()}
    for term in TERMS:
        report = report_of([located(term)])
        for text in (report.findings, report.impression):
            assert {word.strip(".") for word in text.split()} <= words
