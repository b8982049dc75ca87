from emx_shared.contracts.findings import TERMS
from emx_shared.grammar import LocatedFinding, LocBox, parse
from emx_training.data.phantom_reports import LUNGS_CLEAR, NOTHING_FOUND, corpus, report_of

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
