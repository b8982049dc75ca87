"""Whether a finding's stated probability is the share of such findings that are right.

A reported finding is right if the truth has its term (finding and side), wherever its box is: the probability is
of the term. If a term is reported more often than it is true, those with the highest probabilities count as right.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from emx_training.evaluate.predictions import Case

BINS = 10
"""Bins of equal width from 0 to 1."""


@dataclass(frozen=True)
class Forecast:
    """A reported finding with its probability, and whether it is right."""

    probability: float
    right: bool


@dataclass(frozen=True)
class Bin:
    """The forecasts whose probability is in one tenth of 0 to 1.

    Attributes:
        forecasts: how many.
        probability: their mean probability.
        right: the share of them that is right.
    """

    forecasts: int
    probability: float
    right: float


def forecasts(cases: Iterable[Case]) -> list[Forecast]:
    """Return every reported finding whose probability is known."""
    found = []
    for case in cases:
        if case.probabilities is None:
            continue
        left = Counter(one.term for one in case.truth.locations)
        reported = zip(case.reported.locations, case.probabilities, strict=True)
        for one, probability in sorted(reported, key=lambda pair: -pair[1]):
            found.append(Forecast(probability, left[one.term] > 0))
            left[one.term] -= 1
    return found


def bins(found: Sequence[Forecast]) -> list[Bin]:
    """Return the tenths of 0 to 1 that contain any forecasts."""
    tenths: list[list[Forecast]] = [[] for _ in range(BINS)]
    for forecast in found:
        tenths[min(int(forecast.probability * BINS), BINS - 1)].append(forecast)
    return [
        Bin(
            len(tenth),
            sum(forecast.probability for forecast in tenth) / len(tenth),
            sum(forecast.right for forecast in tenth) / len(tenth),
        )
        for tenth in tenths
        if tenth
    ]


def expected_calibration_error(found: Sequence[Forecast]) -> float:
    """Return the mean distance of stated probability and truth, over tenths (Guo et al., ICML 2017)."""
    errors = (tenth.forecasts * abs(tenth.right - tenth.probability) for tenth in bins(found))
    return sum(errors) / max(len(found), 1)
