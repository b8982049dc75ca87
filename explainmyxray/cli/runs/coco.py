"""Boxes in the format of COCO (Lin et al., *Microsoft COCO*, ECCV 2014; cocodataset.org, Data format)."""

from typing import Any

from emx_shared.contracts.findings import FINDINGS
from emx_shared.contracts.report import DISCLAIMER, Box, Location
from explainmyxray.cli.runs.run_result import RunResult

_SIDEWAYS = 5
"""EXIF's Orientation from which on width and height are exchanged."""


class CocoBoxes:
    """The boxes of reports, in pixels as the files store them, not turned upright: x, y, width, height.

    A file whose report has no finding is listed without annotations. Files without a report, and those that the
    model declined to read, aren't listed: nothing is known of their boxes. Each finding has the same number in
    every file.
    """

    def __init__(self) -> None:
        self._categories = {finding.label: number for number, finding in enumerate(FINDINGS, start=1)}
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, result: RunResult) -> None:
        """Add the boxes of a result."""
        report = result.report
        if report is None or report.abstained:
            return
        number, image = len(self._images) + 1, report.image
        width, height = (
            (image.height, image.width) if image.orientation >= _SIDEWAYS else (image.width, image.height)
        )
        self._images.append({"id": number, "file_name": result.name, "width": width, "height": height})
        self._annotations += [
            self._annotation(number, location, location.box_stored or image.stored(location.box))
            for location in report.locations
        ]

    def document(self) -> dict[str, Any]:
        """Return the whole as COCO has it."""
        for number, annotation in enumerate(self._annotations, start=1):
            annotation["id"] = number
        categories = [
            {"id": number, "name": label, "supercategory": "finding"} for label, number in self._categories.items()
        ]
        return {
            "info": {"description": DISCLAIMER},
            "images": self._images,
            "annotations": self._annotations,
            "categories": categories,
        }

    def _annotation(self, image: int, location: Location, box: Box) -> dict[str, Any]:
        width, height = box.xmax - box.xmin, box.ymax - box.ymin
        return {
            "image_id": image,
            "category_id": self._categories.setdefault(location.label, len(self._categories) + 1),
            "bbox": [box.xmin, box.ymin, width, height],
            "area": width * height,
            "iscrowd": 0,
            "laterality": location.laterality,
            "score": location.probability,
        }
