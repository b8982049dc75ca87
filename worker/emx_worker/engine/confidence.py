"""How sure the model was of each finding, from the probabilities of the tokens that name it."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence

from emx_shared.grammar import LocatedFinding, ReportText, Span

_SENTENCE = re.compile(r"[^.]*\.")


def finding_probabilities(
    report: ReportText, terms: Sequence[tuple[Span, ...]], pieces: Sequence[str], probabilities: Sequence[float]
) -> tuple[float, ...]:
    """The probability of each location of a report, in order: the product of those of the tokens that named it.

    Greedy decoding decides on a finding where FINDINGS first names it; by the time it stands in LOCATIONS, little
    is left to decide. So the tokens are those of the sentence that names the finding, from its first to the last
    that is needed: all words of the label, or of one of its synonyms, and the side. What comes after them in the
    sentence is no part of the decision. Where a term stands several times in LOCATIONS, each takes the next
    sentence that names it, and those left over the last. A finding that no sentence names has the product over its
    term in LOCATIONS, with the separator before it and without the box.

    Parameters:
        report: the text in parts.
        terms: where the text names each location (``Notation.naming``).
        pieces: what each token added to the text; joined, they begin with the report's text.
        probabilities: of each token among those that were allowed, 0 to 1; a forced token has 1.
    """
    sentences = _sentences(report)
    used: defaultdict[str, int] = defaultdict(int)
    spans = []
    for located, term in zip(report.locations, terms, strict=True):
        naming = [span for sentence in sentences if (span := _naming(sentence, located))]
        key = located.term
        spans.append((naming[min(used[key], len(naming) - 1)],) if naming else term)
        used[key] += 1
    return tuple(_product(span, pieces, probabilities) for span in spans)


def _sentences(report: ReportText) -> list[tuple[int, str]]:
    """Each sentence of FINDINGS with its place in the text, the space before it included."""
    begin = str(report).index(report.findings)
    return [(begin + found.start(), found.group()) for found in _SENTENCE.finditer(report.findings)]


def _naming(sentence: tuple[int, str], located: LocatedFinding) -> Span | None:
    """From the sentence's beginning to the last word that it takes to name a finding and its side."""
    begin, text = sentence
    side = [located.laterality] if located.laterality else []
    ends = [
        max(found.end() for found in founds if found)
        for name in (located.finding.label, *located.finding.synonyms)
        if all(founds := [re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in [*name.split(), *side]])
    ]
    return (begin, begin + min(ends)) if ends else None


def _product(spans: tuple[Span, ...], pieces: Sequence[str], probabilities: Sequence[float]) -> float:
    """Over the tokens that have a character in one of the spans."""
    factors, at = [], 0
    for piece, probability in zip(pieces, probabilities, strict=True):
        if any(at < end and at + len(piece) > begin for begin, end in spans):
            factors.append(probability)
        at += len(piece)
    return math.prod(factors)
