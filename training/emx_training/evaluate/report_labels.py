"""Which findings the text of a report states: by rules, after NegEx and the CheXpert labeller.

A finding is looked for in each sentence by its label, its synonyms and a few wordings of radiology reports. Words
before or after it in the sentence negate it or make it uncertain, unless a word between them ends their reach
(Chapman et al., Journal of Biomedical Informatics 2001; Irvin et al., AAAI 2019). The rules see one sentence at a
time, and English only. ``tests/unit/training/test_report_labels.py`` compares them with what people coded.
"""

import re
from collections.abc import Iterable
from enum import IntEnum
from functools import cache

from emx_shared.contracts.findings import FINDINGS
from emx_shared.grammar import as_prose, sentences


class Mention(IntEnum):
    """How a report mentions a finding; of several mentions, the highest counts."""

    ABSENT = 0
    UNCERTAIN = 1
    PRESENT = 2


_WORDINGS: dict[str, tuple[str, ...]] = {
    "cardiomegaly": (
        r"cardiac enlargement",
        r"(?:heart|cardiac (?:silhouette|shadow)|cardiopericardial silhouette)(?: size)?"
        r"(?: (?!not)\w+){0,4}? (?:enlarged|large)",
        r"enlarge(?:d|ment of)(?: the)? (?:heart|cardiac|cardiopericardial|cardiomediastinal)",
    ),
    "pleural effusion": (r"(?:pleural|costophrenic) fluid", r"hydrothorax"),
    "pneumothorax": (r"pneumothoraces",),
    "consolidation": (r"consolidative", r"air ?space (?:disease|opacit(?:y|ies)|consolidation)"),
    "atelectasis": (r"atelecta(?:tic|ses)", r"(?:lobar|lobe|lung) collapse"),
    "nodule": (r"nodular (?:density|opacity)",),
    "interstitial pattern": (r"interstitial (?:markings|opacit(?:y|ies)|prominence|disease|changes|thickening)",),
    "pulmonary edema": (r"(?:interstitial|alveolar) (?:pulmonary )?o?edema", r"pulmonary oedema", r"edema"),
    "pneumonia": (r"pneumonic", r"bronchopneumonia"),
    "emphysema": (r"emphysematous",),
    "pulmonary fibrosis": (r"fibrotic", r"interstitial fibrosis"),
    "pleural thickening": (r"thickening of the pleura", r"(?:apical|pleural)(?: pleural)? (?:thickening|capping)"),
    "rib fracture": (
        r"fractures?(?: \w+){0,5}? ribs?",
        r"ribs?(?: \w+){0,3}? fractures?",
    ),
    "hiatal hernia": (r"hiatus hernia", r"hernia hiatal"),
    "scoliosis": (
        r"scolio(?:tic|tis)",
        r"dextroscoliosis",
        r"levoscoliosis",
        r"dextrocurvature",
        r"levocurvature",
    ),
}
"""Regular expressions of what reports call a finding, beside its label and synonyms."""

_CLAUSE = re.compile(
    r";|:|\b(?:but|however|although|though|except|aside from|apart from|otherwise|whereas|"
    r"there (?:is|are|has|was)|"
    r"(?:which|that) (?:is|are)|(?:remains?|stable|unchanged|persistent|redemonstrated|again (?:seen|noted)))\b"
)
"""What ends the reach of a word before a finding."""

_PSEUDO = re.compile(
    r"\b(?:no|not|without)(?: \w+){0,2}? "
    r"(?:changes?|changed|increase|increased|worsening|improvement|difference)\b(?: in| of| from)?|"
    r"\bnot only\b|\bno longer\b"
)
"""Negations of something else than the finding."""

_NEGATED_BEFORE = re.compile(
    r"\b(?:no|not|without|free of|clear of|negative for|absence of|absent|neither|nor|rather than|"
    r"resol(?:ved|ution of)|rules? out|exclude|excludes|lack of|lacks|never|denies)\b"
)
_NEGATED_AFTER = re.compile(
    r"^[^,;:]*?\b(?:(?:is|are|was|were)(?: \w+)? (?:not|no longer)|"
    r"not (?:seen|identified|present|evident|visuali[sz]ed)|"
    r"(?:has|have)(?: \w+)? (?:resolved|cleared)|(?:is|are|was|were) (?:absent|excluded|ruled out|negative))\b"
)
_UNCERTAIN_BEFORE = re.compile(
    r"\b(?:possibl[ey]|probabl[ey]|likely|may|might|could|suspect(?:ed)?|suspicious for|suspicion of|suggest\w*|"
    r"questionable|question of|(?:not|cannot|can't)(?: be)?(?: \w+)? exclude|concern(?:ing)? for|correlate|"
    r"versus|vs|evaluate for|differential|borderline|if)\b"
)
_UNCERTAIN_AFTER = re.compile(
    r"^[^;:]*?\b(?:(?:cannot|can't|could not|not)(?: be)?(?: \w+)? (?:excluded|ruled out)|(?:is|are) possible|"
    r"(?:is|are) (?:suspected|questioned)|versus|vs|less likely)\b"
)


def mentions(text: str) -> dict[str, Mention]:
    """Return how a text mentions each finding that it mentions, by the finding's label."""
    line = as_prose(text)
    found: dict[str, Mention] = {}
    for begin, end in sentences(line):
        for label, mention in _in_sentence(line[begin:end].lower()):
            found[label] = max(mention, found.get(label, Mention.ABSENT))
    return found


def stated_findings(text: str) -> frozenset[str]:
    """Return the labels of the findings that a text states without doubt."""
    return frozenset(label for label, mention in mentions(text).items() if mention is Mention.PRESENT)


def _in_sentence(sentence: str) -> Iterable[tuple[str, Mention]]:
    """Yield each finding in a sentence. A name within a longer one is none: effusion in pericardial effusion."""
    found = [
        (match.start(), match.end(), label)
        for label, pattern in _patterns().items()
        for match in pattern.finditer(sentence)
    ]
    for begin, end, label in found:
        if not any(first <= begin and end <= last and last - first > end - begin for first, last, _ in found):
            yield label, _mention(sentence[:begin], sentence[end:])


def _mention(before: str, after: str) -> Mention:
    reach = _PSEUDO.sub(" ", _CLAUSE.split(before)[-1])
    rest = _PSEUDO.sub(" ", after)
    if _UNCERTAIN_BEFORE.search(reach) or _UNCERTAIN_AFTER.search(rest):
        negated = _NEGATED_BEFORE.search(reach) and not re.search(r"exclud|ruled? out", reach + rest)
        return Mention.ABSENT if negated else Mention.UNCERTAIN
    if _NEGATED_BEFORE.search(reach) or _NEGATED_AFTER.search(rest):
        return Mention.ABSENT
    return Mention.PRESENT


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    """Return what each finding is looked for with; of two that begin at a place, the longer wording first."""
    patterns = {}
    for finding in FINDINGS:
        names = [re.escape(name.lower()) + "(?:s|es)?" for name in (finding.label, *finding.synonyms)]
        wordings = sorted([*names, *_WORDINGS.get(finding.label, ())], key=len, reverse=True)
        patterns[finding.label] = re.compile(rf"\b(?:{'|'.join(wordings)})\b")
    return patterns
