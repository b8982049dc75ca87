"""Average precision of located findings at IoU 0.5 (AP50).

In each image, the predicted boxes of a term (finding and side) are taken in order of falling probability. Each
takes the free true box of the highest IoU if that is at least 0.5, and is right; otherwise it is wrong (the
pairing of COCO: Lin et al., ECCV 2014). The boxes of all images are then put in one order of falling probability.
Precision at each recall is the best at this or any higher recall, and AP is the whole area under it: interpolation
over all points, as in PASCAL VOC since 2010 (Everingham et al., IJCV 2015); COCO samples 101 of them. Boxes of one
probability share a point, so that their order in the file doesn't matter; without probabilities, the curve of a
term is a single point. mAP50 is the mean over the terms that occur in the truth.
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
    """A predicted box of a term.

    Attributes:
        probability: of the finding, 0 to 1.
        hit: whether it is paired with a true box.
    """

    probability: float
    hit: bool


@dataclass(frozen=True)
class Curve:
    """A precision–recall curve with a point for each probability that occurs, from the highest to the lowest.

    Attributes:
        recall, precision: (resamples, points).
    """

    recall: Array
    precision: Array

    @property
    def interpolated(self) -> Array:
        """Return the best precision at each recall or any higher one, (resamples, points)."""
        best: Array = np.maximum.accumulate(self.precision[:, ::-1], axis=1)[:, ::-1]
        return best

    @property
    def area(self) -> Array:
        """Return the area under the interpolated curve, (resamples,)."""
        area: Array = (np.diff(self.recall, axis=1, prepend=0.0) * self.interpolated).sum(axis=1)
        return area


def detections(
    truth: Sequence[LocBox], predicted: Sequence[LocBox], probabilities: Sequence[float]
) -> list[Detection]:
    """Pair the boxes of one term in one image.

    Args:
        truth: the true boxes.
        predicted: the predicted boxes.
        probabilities: of the predicted boxes.
    """
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
    """Return the curve of one term.

    Args:
        found: the term's detections in each image.
        truths: number of true boxes in each image, (images,).
        weights: how often each image counts, (resamples, images).
    """
    flat = sorted(
        ((one.probability, one.hit, image) for image, several in enumerate(found) for one in several), reverse=True
    )
    probabilities = np.array([probability for probability, _, _ in flat])
    hits = np.array([hit for _, hit, _ in flat], bool)
    counted = weights[:, [image for _, _, image in flat]]
    last = np.flatnonzero(np.diff(probabilities, append=-1.0))
    right = np.cumsum(counted * hits, axis=1)[:, last]
    predicted = np.cumsum(counted, axis=1)[:, last]
    whole = (weights @ truths)[:, None]
    return Curve(ratio(right, np.broadcast_to(whole, right.shape)), ratio(right, predicted))


def mean_average_precision(
    found: dict[str, Sequence[Sequence[Detection]]], truths: dict[str, Array], weights: Array
) -> Array:
    """Return the mAP50 of each resample, (resamples,): the mean over the terms in its truth, 0 if there are none.

    Args:
        found: the detections of each term in each image.
        truths: number of true boxes of each term in each image, (images,).
        weights: how often each image counts, (resamples, images).
    """
    areas, held = np.zeros(len(weights)), np.zeros(len(weights))
    for term, several in found.items():
        occurs = weights @ truths[term] > 0
        areas += np.where(occurs, curve(several, truths[term], weights).area, 0)
        held += occurs
    return ratio(areas, held)


def ratio(part: Array, whole: Array) -> Array:
    """Divide, with 0 where ``whole`` is 0."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)
