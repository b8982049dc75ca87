"""PadChest's codes as English, over the whole published table."""

import ast
import csv
import gzip
import re
from collections import Counter

import pytest

from emx_shared.contracts.findings import TERMS
from emx_training.data.padchest import FRONTAL, read_padchest
from emx_training.data.padchest_text import NO_FINDING, conclude, describe, describe_normal, mentions
from emx_training.data.phantom_reports import HEART_NORMAL, LUNGS_CLEAR, NOTHING_FOUND
from emx_training.data.source_image import SourceImage
from support.collections import PADCHEST, real_tables

_SENTENCE = re.compile(r"[^.]+\.")
_PLACE = r"(?:in|at|on|over|behind|beside|below|to|through\w*|extending|of|after|seen)"
_THERE = re.compile(rf"There (?P<verb>is|are) (?P<first>.+?)(?:,| and | {_PLACE} |\.)")
_PLURALS = ("bullae", "sequelae")
_SINGULARS = ("sis", "loss", "pectus", "excavatum", "carinatum", "obesity", "respiratory distress")


@pytest.fixture(scope="module")
def padchest() -> list[SourceImage]:
    return list(read_padchest(PADCHEST))


@real_tables
def test_verbs_and_articles_fit_their_nouns(padchest: list[SourceImage]) -> None:
    sentences = {text.strip() for one in padchest for text in _SENTENCE.findall(one.findings)}
    assert len(sentences) > 3000
    for text in sentences:
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|\b(\w+) \1\b", text), text
        if text.startswith("There "):
            found = _THERE.match(text)
            assert found, text
            noun, article = found["first"], found["first"].split()[0] in ("a", "an")
            plural = noun.endswith(("s", *_PLURALS)) and not noun.endswith(_SINGULARS) and not article
            assert (found["verb"] == "are") == plural, text
        else:
            assert re.match(r"The [a-z ]+ (is|are) [a-z ]+\.", text), text


@real_tables
def test_english_is_american_and_nothing_is_left_of_the_codes(padchest: list[SourceImage]) -> None:
    words = Counter(word for one in padchest for word in re.findall(r"[\w-]+", f"{one.findings} {one.impression}"))
    assert not [word for word in words if re.search(r"oedema|\boesoph|goitre|gynaec|tumour|haem|lesional", word)]
    codes = {"loc", "nan", "bullas", "NSG", "dai", "pectum", "mediastinic", "descendent", "exclude"}
    assert not codes & words.keys()


@real_tables
def test_an_impression_concludes_and_doesnt_repeat(padchest: list[SourceImage]) -> None:
    for one in padchest:
        found, concluded = (_SENTENCE.findall(f" {text}") for text in (one.findings, one.impression))
        assert concluded and not set(found) & set(concluded)
        assert len(set(found)) == len(found) and len(set(concluded)) == len(concluded)
    assert sum(len(one.impression) < len(one.findings) for one in padchest) > 0.99 * len(padchest)


@real_tables
def test_an_image_is_normal_only_if_the_radiologist_has_said_so(padchest: list[SourceImage]) -> None:
    labels: dict[str, set[str]] = {}
    with gzip.open(PADCHEST, "rt", encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["MethodLabel"] == "Physician" and row["Projection"] in FRONTAL:
                labels[row["ImageID"].removesuffix(".png")] = set(map(str.strip, _labels(row["Labels"])))
    kinds: Counter[str] = Counter()
    for one in padchest:
        abnormal = labels[one.id] - NO_FINDING
        normal = NOTHING_FOUND in one.impression
        assert normal == (not abnormal), one
        assert (LUNGS_CLEAR in one.findings) == normal
        assert not (normal and {"unchanged", "exclude"} & labels[one.id])
        assert "cardiomegaly" not in abnormal or HEART_NORMAL not in one.findings
        assert set(one.terms) <= set(TERMS)
        kinds["normal" if normal else "findings"] += 1
    assert kinds == {"findings": 15_036, "normal": 8_471}


def _labels(text: str) -> list[str]:
    return [str(label) for label in ast.literal_eval(re.sub(r"(?<=[\[ ])nan(?=[\],])", "''", text) or "[]")]


@pytest.mark.parametrize(
    ("sentence", "findings", "impression"),
    [
        (["chronic changes"], "There are chronic changes.", "Chronic changes."),
        (["nodule", "loc right lower lobe"], "There is a nodule in the right lower lobe.", "Right-sided nodule."),
        (["bullas", "loc basal", "loc left"], "There are bullae at the left base.", "Left-sided bullae."),
        (["pneumonia", "loc lingula"], "There is pneumonia in the lingula.", "Left-sided pneumonia."),
        (["nodule", "loc bilateral"], "There are nodules in both lungs.", "Bilateral nodules."),
        (
            ["atelectasis", "pleural effusion", "loc basal", "loc pleural", "loc left"],
            "There is atelectasis at the left base. There is a left pleural effusion.",
            "Left-sided atelectasis. Left pleural effusion.",
        ),
        (
            ["pleural effusion both sides", "loc pleural", "loc bilateral"],
            "There are bilateral pleural effusions.",
            "Bilateral pleural effusions.",
        ),
        (
            ["costophrenic angle blunting", "loc left costophrenic angle", "loc costophrenic angle"],
            "There is blunting of the left costophrenic angle.",
            "Blunting of the left costophrenic angle.",
        ),
        (
            ["pacemaker", "dual chamber device", "loc pectoral", "loc left"],
            "There is a dual-chamber pacemaker on the left.",
            "Dual-chamber pacemaker.",
        ),
        (["cardiomegaly", "loc cardiac"], "The heart is enlarged.", "Cardiomegaly."),
        (["callus rib fracture", "loc rib", "loc right"], "There is a healed right rib fracture.",
         "Healed right rib fracture."),
        (
            ["NSG tube", "endotracheal tube", "pneumothorax", "loc right"],
            "There is a nasogastric tube, an endotracheal tube, and a right pneumothorax.",
            "Right pneumothorax.",
        ),
        (["scoliosis", "unchanged", "normal"], "There is scoliosis.", "Scoliosis."),
        (["exclude"], "", ""),
    ],
)  # fmt: skip
def test_a_sentence_of_codes_is_a_sentence_of_english(sentence: list[str], findings: str, impression: str) -> None:
    found = mentions(sentence)
    assert " ".join(describe(found)) == findings
    assert " ".join(conclude(found)) == impression


def test_sides_of_several_labels_are_nobodys() -> None:
    """Right and left beside two labels: which is where isn't known."""
    found = mentions(["consolidation", "pleural effusion", "loc right", "loc left"])
    assert [one.side for one in found] == [None, None]
    assert [one.side for one in mentions(["consolidation", "loc right", "loc left"])] == ["both"]


def test_a_part_is_normal_only_if_nothing_else_is_named_there() -> None:
    assert describe_normal(["normal", "loc cardiac"]) == HEART_NORMAL
    assert describe_normal(["normal", "loc pleural", "loc right"]) == ""
    assert describe_normal(["normal", "loc cardiac", "loc pectoral"]) == ""
