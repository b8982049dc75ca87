"""What the text of a report states: single sentences, and all of Open-i beside what its readers coded."""

import importlib.util
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from emx_shared.contracts.findings import BY_LABEL, FINDINGS, Finding
from emx_training.evaluate.report_labels import _WORDINGS, Mention, mentions, stated_findings

ABSENT, UNCERTAIN, PRESENT = Mention.ABSENT, Mention.UNCERTAIN, Mention.PRESENT

_FOUND = importlib.util.find_spec("torchxrayvision")  # its tables alone: importing it takes torchvision
OPENI = Path(str(_FOUND and _FOUND.origin)).parent / "data" / "NLMCXR_reports.tgz"

CODED = {
    "cardiomegaly": "Cardiomegaly",
    "pleural effusion": "Pleural Effusion",
    "atelectasis": "Pulmonary Atelectasis",
    "pulmonary edema": "Pulmonary Edema",
    "pneumonia": "Pneumonia",
    "emphysema": "Pulmonary Emphysema",
    "hiatal hernia": "Hernia, Hiatal",
    "scoliosis": "Scoliosis",
    "rib fracture": "Fractures, Bone/ribs",
    "pneumothorax": "Pneumothorax",
}
"""MeSH terms that mean the same as a label of ours."""


@pytest.mark.parametrize(
    ("text", "label", "mention"),
    [
        ("There is a small left pleural effusion.", "pleural effusion", PRESENT),
        ("No pneumothorax, pleural effusion or consolidation.", "pleural effusion", ABSENT),
        ("No pneumothorax, but a small pleural effusion.", "pleural effusion", PRESENT),
        ("No pneumothorax. Stable cardiomegaly.", "cardiomegaly", PRESENT),
        ("The heart is mildly enlarged.", "cardiomegaly", PRESENT),
        ("No change in the right pleural effusion.", "pleural effusion", PRESENT),
        ("The pneumothorax has resolved.", "pneumothorax", ABSENT),
        ("Consolidation is not seen.", "consolidation", ABSENT),
        ("Possible pneumonia.", "pneumonia", UNCERTAIN),
        ("Opacity may represent atelectasis.", "atelectasis", UNCERTAIN),
        ("Pneumonia cannot be excluded.", "pneumonia", UNCERTAIN),
        ("No evidence of pneumonia. There is pneumonia on the left.", "pneumonia", PRESENT),
        ("Old fractures of the right ribs.", "rib fracture", PRESENT),
    ],
)
def test_words_around_a_finding_decide_how_it_is_mentioned(text: str, label: str, mention: Mention) -> None:
    assert mentions(text)[label] is mention
    assert (label in stated_findings(text)) == (mention is PRESENT)


def test_what_is_not_mentioned_has_no_mention() -> None:
    assert mentions("The lungs are clear.") == {}
    assert mentions("") == {}
    assert mentions("The heart is not enlarged.") == {}


def test_a_name_within_a_longer_one_is_not_the_shorter_finding() -> None:
    assert stated_findings("There is a pericardial effusion.") == {"pericardial effusion"}
    assert stated_findings("A pericardial effusion and an effusion.") == {
        "pericardial effusion",
        "pleural effusion",
    }


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda one: one.code)
def test_every_name_of_the_vocabulary_is_found(finding: Finding) -> None:
    for name in (finding.label, *finding.synonyms):
        assert stated_findings(f"There is a {name}.") >= {finding.label}
        assert finding.label not in stated_findings(f"There is no {name}.")


def test_wordings_are_of_findings_in_the_vocabulary() -> None:
    assert _WORDINGS.keys() <= BY_LABEL.keys()


def _openi() -> Iterator[tuple[str, list[str]]]:
    with tarfile.open(OPENI) as archive:
        for member in archive:
            if member.name.endswith(".xml"):
                root = ElementTree.parse(archive.extractfile(member)).getroot()
                sections = {node.get("Label"): node.text or "" for node in root.iter("AbstractText")}
                text = f"{sections.get('FINDINGS', '')} {sections.get('IMPRESSION', '')}"
                yield text, [node.text or "" for node in root.iter("major")]


@pytest.mark.skipif(not OPENI.exists(), reason="no torchxrayvision wheel here")
def test_most_findings_that_people_coded_of_real_reports_are_found_and_few_others() -> None:
    counts: Counter[str] = Counter()
    for text, coded in _openi():
        stated = stated_findings(text)
        for label, term in CODED.items():
            true = any(one == term or one.startswith(f"{term}/") for one in coded)
            counts["both"] += true and label in stated
            counts["either"] += true + (label in stated)
    f1 = 2 * counts["both"] / counts["either"]
    assert counts["either"] > 2000
    assert f1 > 0.88, f1
