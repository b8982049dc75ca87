"""What a collection's tables give, counted without its images."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from emx_training.data.boxes import BoxedImage
from emx_training.data.phantom_reports import NOTHING_FOUND
from emx_training.data.source_image import SPLITS, SourceImage


def count_reports(found: Sequence[SourceImage], left_out: Counter[str]) -> dict[str, Any]:
    """Count phase 1's images by split and by term, and those left out by reason.

    Args:
        found: the images that can be trained on.
        left_out: how many others the reader met, by reason.
    """
    counts: dict[str, Any] = {"images": len(found), **_splits(found)}
    if terms := Counter(term for one in found for term in one.terms):
        counts["normal"] = sum(one.impression == NOTHING_FOUND for one in found)
        counts["images by term"] = dict(terms.most_common())
    return counts | {"left out": dict(left_out.most_common())}


def count_boxes(found: Sequence[BoxedImage]) -> dict[str, Any]:
    """Count phase 2's images by split and by finding, boxes by finding, and images that are left out by reason."""
    usable = [one for one in found if not one.uninformative]
    normal = sum(not one.found and not one.unlocated for one in usable)
    left_out = Counter(one.uninformative.partition(":")[0] for one in found if one.uninformative)
    return {
        "images": len(usable),
        **_splits(usable),
        "normal": normal,
        "with more than its boxes show": sum(bool(one.unlocated) for one in usable),
        "images by finding": _by_count(label for one in usable for label in dict(one.found)),
        "boxes by finding": _by_count(label for one in usable for label, _ in one.found),
        "left out": dict(left_out.most_common()),
    }


def _by_count(labels: Iterable[str]) -> dict[str, int]:
    return dict(Counter(labels).most_common())


def _splits(found: Sequence[SourceImage] | Sequence[BoxedImage]) -> dict[str, int]:
    counted = Counter(one.split for one in found)
    return {split: counted[split] for split in SPLITS}
