"""Whether the probabilities of findings mean what they say.

A told finding is right if the truth holds its term (finding and side), wherever its box lies: that is what the
probability is of. Where a term was told more often than it is true, the surest are the right ones.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from emx_training.evaluate.predictions import Case

BINS = 10


@dataclass(frozen=True)
class Claim:
    """A finding that was told with this probability."""

    probability: float
    right: bool


@dataclass(frozen=True)
class Bin:
    """The claims whose probability lies in one tenth of 0 to 1."""

    claims: int
    probability: float
    right: float


def claims(cases: Iterable[Case]) -> list[Claim]:
    """Every told finding whose probability is known."""
    found = []
    for case in cases:
        if case.probabilities is None:
            continue
        left = Counter(one.term for one in case.truth.locations)
        told = zip(case.told.locations, case.probabilities, strict=True)
        for one, probability in sorted(told, key=lambda pair: -pair[1]):
            found.append(Claim(probability, left[one.term] > 0))
            left[one.term] -= 1
    return found


def bins(told: Sequence[Claim]) -> list[Bin]:
    """The tenths that hold any claims: how many, their mean probability and how many of them are right."""
    tenths: list[list[Claim]] = [[] for _ in range(BINS)]
    for claim in told:
        tenths[min(int(claim.probability * BINS), BINS - 1)].append(claim)
    return [
        Bin(
            len(tenth),
            sum(claim.probability for claim in tenth) / len(tenth),
            sum(claim.right for claim in tenth) / len(tenth),
        )
        for tenth in tenths
        if tenth
    ]


def expected_calibration_error(told: Sequence[Claim]) -> float:
    """Mean distance of stated probability and truth, over tenths of equal width (Guo et al., ICML 2017)."""
    return sum(tenth.claims * abs(tenth.right - tenth.probability) for tenth in bins(told)) / max(len(told), 1)
