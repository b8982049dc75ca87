"""Average precision of located findings at IoU 0.5 (AP50).

Within a study, the predicted boxes of a term (finding and side), in order of falling probability, each take the
free true box of the highest IoU if that is at least 0.5, and are right; those that get none are wrong (the
pairing of COCO: Lin et al., ECCV 2014). The boxes of all studies are then put in one order of falling
probability. Precision at each recall is the best that this or any higher recall has, and AP is the whole area
under it: interpolation over all points, as PASCAL VOC has had it since 2010 (Everingham et al., IJCV 2015); COCO
reads 101 of them. Boxes of one probability share a point, so that their order in the file is no matter; without
probabilities, the curve of a term is a single point. mAP50 is the mean over the terms that occur in the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emx_shared.grammar import LocBox
from emx_training.evaluate.overlap import MATCHING_IOU, intersection_over_union

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Detection:
    """A predicted box: how sure the model was of it, and whether it found a true box of its term."""

    probability: float
    hit: bool


@dataclass(frozen=True)
class Curve:
    """A precision–recall curve; a point for each probability that occurs, from the highest to the lowest.

    Both arrays are (resamples, points).
    """

    recall: Array
    precision: Array

    @property
    def interpolated(self) -> Array:
        """Precision made to fall only."""
        return np.maximum.accumulate(self.precision[:, ::-1], axis=1)[:, ::-1]

    @property
    def area(self) -> Array:
        """(resamples,)"""
        return (np.diff(self.recall, axis=1, prepend=0.0) * self.interpolated).sum(axis=1)


def detections(
    truth: Sequence[LocBox], predicted: Sequence[LocBox], probabilities: Sequence[float]
) -> list[Detection]:
    """The predicted boxes of one term in one study."""
    free = list(truth)
    found = []
    for rank in sorted(range(len(predicted)), key=lambda index: -probabilities[index]):
        best = max(free, key=lambda box: intersection_over_union(box, predicted[rank]), default=None)
        hit = best is not None and intersection_over_union(best, predicted[rank]) >= MATCHING_IOU
        if best is not None and hit:
            free.remove(best)
        found.append(Detection(probabilities[rank], hit))
    return found


def curve(found: Sequence[Sequence[Detection]], truths: Array, weights: Array) -> Curve:
    """The curve of one term.

    Parameters:
        found: its detections in each study.
        truths: how many true boxes each study has, (studies,).
        weights: how often each study counts, (resamples, studies).
    """
    flat = sorted(
        ((one.probability, one.hit, study) for study, several in enumerate(found) for one in several), reverse=True
    )
    probabilities = np.array([probability for probability, _, _ in flat])
    hits = np.array([hit for _, hit, _ in flat], bool)
    counted = weights[:, [study for _, _, study in flat]]
    last = np.flatnonzero(np.diff(probabilities, append=-1.0))
    right = np.cumsum(counted * hits, axis=1)[:, last]
    told = np.cumsum(counted, axis=1)[:, last]
    whole = (weights @ truths)[:, None]
    return Curve(ratio(right, np.broadcast_to(whole, right.shape)), ratio(right, told))


def mean_average_precision(
    found: dict[str, Sequence[Sequence[Detection]]], truths: dict[str, Array], weights: Array
) -> Array:
    """mAP50 of each resample, (resamples,): the mean over the terms that its truth holds, 0 if there are none."""
    areas, held = np.zeros(len(weights)), np.zeros(len(weights))
    for term, several in found.items():
        occurs = weights @ truths[term] > 0
        areas += np.where(occurs, curve(several, truths[term], weights).area, 0)
        held += occurs
    return ratio(areas, held)


def ratio(part: Array, whole: Array) -> Array:
    """0 where it has no base."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)
