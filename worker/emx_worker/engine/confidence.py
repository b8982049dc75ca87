"""Computes how sure the model was of each finding, from the probabilities of the tokens that name it."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence

from emx_shared.grammar import LocatedFinding, ReportText, Span, sentences


def finding_probabilities(
    report: ReportText, terms: Sequence[tuple[Span, ...]], pieces: Sequence[str], probabilities: Sequence[float]
) -> tuple[float, ...]:
    """Compute the probability of each location of a report: the product over the tokens that named its finding.

    Greedy decoding decides on a finding where FINDINGS first names it; little is left to decide when LOCATIONS
    repeats it. So the tokens are those of the sentence that names the finding, from the sentence's first token to
    the last one needed: all words of the label, or of one of its synonyms, and the side. The rest of the sentence
    is no part of the decision. If LOCATIONS contains a term several times, each occurrence takes the next sentence
    that names it, and further occurrences share the last. A finding that no sentence names has the product over
    its term in LOCATIONS, with the separator before it and without the box.

    Args:
        report: the text in parts.
        terms: where the text names each location (``BoxNotation.finding_spans``).
        pieces: the text that each token added; joined, they begin with the report's text.
        probabilities: of each token among the tokens that were allowed, 0 to 1; 1 for a forced token.

    Returns:
        The probabilities in the order of the locations, 0 to 1.
    """
    described = _sentences(report)
    used: defaultdict[str, int] = defaultdict(int)
    spans = []
    for located, term in zip(report.locations, terms, strict=True):
        naming = [span for sentence in described if (span := _naming(sentence, located))]
        key = located.term
        spans.append((naming[min(used[key], len(naming) - 1)],) if naming else term)
        used[key] += 1
    return tuple(_product(span, pieces, probabilities) for span in spans)


def _sentences(report: ReportText) -> list[tuple[int, str]]:
    """Return each sentence of FINDINGS with its position in the text; a sentence includes the space before it."""
    begin, found, end = str(report).index(report.findings), list[tuple[int, str]](), 0
    for _, after in sentences(report.findings):
        found.append((begin + end, report.findings[end:after]))
        end = after
    return found


def _naming(sentence: tuple[int, str], located: LocatedFinding) -> Span | None:
    """Return the span from the sentence's beginning to the last word needed to name the finding and its side."""
    begin, text = sentence
    side = [located.laterality] if located.laterality else []
    ends = [
        max(found.end() for found in founds if found)
        for name in (located.finding.label, *located.finding.synonyms)
        if all(founds := [re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in [*name.split(), *side]])
    ]
    return (begin, begin + min(ends)) if ends else None


def _product(spans: tuple[Span, ...], pieces: Sequence[str], probabilities: Sequence[float]) -> float:
    """Multiply the probabilities of the tokens that have a character in one of the spans."""
    factors, at = [], 0
    for piece, probability in zip(pieces, probabilities, strict=True):
        if any(at < end and at + len(piece) > begin for begin, end in spans):
            factors.append(probability)
        at += len(piece)
    return math.prod(factors)
