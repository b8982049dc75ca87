"""Constant predictions: the best report without looking at the image."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from emx_shared.contracts.findings import TERMS
from emx_shared.grammar import LocatedFinding, LocBox, ReportText, parse


def best_constant_report(texts: Sequence[str]) -> str:
    """Return the constant report of the highest micro-F1 on these true reports.

    It names the most frequent terms, as many as are best, each with its mean box.
    """
    reports = [parse(text) for text in texts]
    frequency = Counter(one.term for report in reports for one in report.locations).most_common()
    total = sum(count for _, count in frequency)

    def micro_f1(named: int) -> float:
        right = sum(count for _, count in frequency[:named])
        return 2 * right / (named * len(texts) + total)

    named = max(range(1, len(frequency) + 1), key=micro_f1)
    return _constant([term for term, _ in frequency[:named]], reports)


def _constant(terms: Sequence[str], reports: Sequence[ReportText]) -> str:
    boxes: defaultdict[str, list[LocBox]] = defaultdict(list)
    for report in reports:
        for one in report.locations:
            boxes[one.term].append(one.box)
    located = tuple(LocatedFinding(*TERMS[term], _mean(boxes[term])) for term in terms)
    return str(ReportText("Constant.", located, "Constant."))


def _mean(boxes: Sequence[LocBox]) -> LocBox:
    ymin, xmin, ymax, xmax = (
        round(sum(getattr(box, side) for box in boxes) / len(boxes)) for side in ("ymin", "xmin", "ymax", "xmax")
    )
    return LocBox(ymin, xmin, ymax, xmax)
