"""Images with boxes for phase 2, whatever collection they come from."""

from collections.abc import Sequence
from dataclasses import dataclass

from emx_shared.contracts.findings import BY_LABEL, Laterality
from emx_training.data.source_study import BadTable, term

COLUMNS = ("image", "term", "xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Rectangle:
    """xmin < xmax and ymin < ymax, in pixels of the original image or in fractions of it."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float

    @property
    def area(self) -> float:
        return max(self.xmax - self.xmin, 0) * max(self.ymax - self.ymin, 0)

    def overlap(self, other: "Rectangle") -> float:
        """Intersection over union."""
        shared = Rectangle(
            max(self.xmin, other.xmin), max(self.ymin, other.ymin),
            min(self.xmax, other.xmax), min(self.ymax, other.ymax),
        ).area  # fmt: skip
        union = self.area + other.area - shared
        return shared / union if union else 0.0


@dataclass(frozen=True)
class BoxedImage:
    """An image with its boxes; without any, it is normal.

    Attributes:
        image: path below the collection's image folder.
        found: the vocabulary's label of each box. The side is that of the box's centre, once the width is known.
        in_fractions: whether the boxes are in fractions of the image instead of pixels.
    """

    image: str
    found: tuple[tuple[str, Rectangle], ...]
    in_fractions: bool = False

    def terms(self, width: int, height: int) -> list[tuple[str, Rectangle]]:
        """Terms with sides (the patient's right is on the image's left), and boxes in fractions of the image.

        Raises BadTable for a box beyond the image.
        """
        across, down = (1, 1) if self.in_fractions else (width, height)
        sided = []
        for label, box in self.found:
            part = Rectangle(box.xmin / across, box.ymin / down, box.xmax / across, box.ymax / down)
            if part.xmax > 1 or part.ymax > 1:
                raise BadTable(f"a box of {label} reaches beyond the image of {width}×{height} pixels")
            side: Laterality = "right" if part.xmin + part.xmax < 1 else "left"
            known = term(BY_LABEL[label], side)
            assert known is not None
            sided.append((known, part))
        return sided


def rectangle(corners: Sequence[str | float], where: str) -> Rectangle:
    """xmin, ymin, xmax, ymax. Raises BadTable, which names ``where`` they stand, for what is no box."""
    try:
        box = Rectangle(*(float(corner) for corner in corners))
    except (ValueError, TypeError):
        raise BadTable(f"{where}: xmin, ymin, xmax and ymax must be four numbers.") from None
    if not box.area > 0 or box.xmin < 0 or box.ymin < 0:
        raise BadTable(f"{where}: the box is inverted, empty or outside the image.")
    return box
