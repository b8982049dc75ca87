"""Images with boxes for phase 2, from any collection."""

from collections.abc import Sequence
from dataclasses import dataclass

from emx_shared.contracts.findings import BY_LABEL, TERMS, Laterality
from emx_shared.contracts.report import Box, ImageFacts
from emx_shared.grammar import LocatedFinding, LocBox, MalformedReport, parse
from emx_shared.imaging import MEDIA_TYPES
from emx_training.data.phantom_reports import report_of
from emx_training.data.source_image import split_of, term
from emx_training.data.tables import BadTable


@dataclass(frozen=True)
class BoxedImage:
    """An image with its boxes. It is normal if it has neither boxes nor anything unlocated.

    Attributes:
        image: path below the collection's image folder.
        patient: pseudonym that decides the split; tables have its digest. Where a collection has none, the image
            stands for its patient.
        found: the vocabulary's label of each box, and the box. Labels have no side yet: it follows from the box's
            centre once the image's width is known.
        unlocated: what the image shows, or may show, without a box to learn from: labels of the vocabulary, and
            ``OTHER``. Nothing is reported of it, but it isn't denied either.
        in_fractions: whether boxes are in fractions of the upright image (0 to 1) instead of pixels of the
            original. In a DICOM file these are the stored pixels, as annotation tools show them; in any other the
            upright ones.
    """

    image: str
    patient: str
    found: tuple[tuple[str, Box], ...]
    unlocated: tuple[str, ...] = ()
    in_fractions: bool = False

    @property
    def split(self) -> str:
        """Return the patient's split."""
        return split_of(self.patient)

    @property
    def uninformative(self) -> str:
        """Return why the image teaches nothing: it has no box, but isn't normal either. Empty if it does."""
        if self.found or not self.unlocated:
            return ""
        return f"no box to learn from, and not known to be normal: {', '.join(self.unlocated)}"

    def terms(self, original: ImageFacts) -> list[tuple[str, Box]]:
        """Return each finding's term with its side, and its box in fractions of the upright image (0 to 1).

        The patient's right is on the image's left.

        Args:
            original: what the decoder says of it.

        Raises:
            BadTable: if a box reaches beyond the image, or there are more than a report holds.
        """
        width, height = original.width, original.height
        across, down = (1, 1) if self.in_fractions else (width, height)
        sided = []
        for label, box in self.found:
            if original.media_type == MEDIA_TYPES["DICOM"] and not self.in_fractions:
                box = original.upright(box)
            part = Box(xmin=box.xmin / across, ymin=box.ymin / down, xmax=box.xmax / across, ymax=box.ymax / down)
            if min(part.xmin, part.ymin) < 0 or max(part.xmax, part.ymax) > 1:
                raise BadTable(f"a box of {label} reaches beyond the image of {width}×{height} pixels")
            side: Laterality = "right" if part.xmin + part.xmax < 1 else "left"
            known = term(BY_LABEL[label], side)
            assert known is not None
            sided.append((known, part))
        if sided:
            _check_length(sided, self.unlocated)
        return sided


def _check_length(sided: Sequence[tuple[str, Box]], unlocated: Sequence[str]) -> None:
    located = [
        LocatedFinding(*TERMS[name], LocBox.of_fractions(box.ymin, box.xmin, box.ymax, box.xmax))
        for name, box in sided
    ]
    try:
        parse(str(report_of(located, unlocated)))
    except MalformedReport:
        raise BadTable(f"more boxes ({len(sided)}) than a report holds") from None


def parse_box(corners: Sequence[str | float], where: str) -> Box:
    """Return a box from the cells of a table.

    Args:
        corners: xmin, ymin, xmax and ymax.
        where: the place in the table, which an error names.

    Raises:
        BadTable: if the corners aren't four numbers, or the box is inverted, empty or outside the image.
    """
    try:
        xmin, ymin, xmax, ymax = (float(corner) for corner in corners)
    except (ValueError, TypeError):
        raise BadTable(f"{where}: xmin, ymin, xmax and ymax must be four numbers.") from None
    if not (0 <= xmin < xmax and 0 <= ymin < ymax):
        raise BadTable(f"{where}: the box is inverted, empty or outside the image.")
    return Box(xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
