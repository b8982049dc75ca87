"""Boxes in the format of COCO (Lin et al., *Microsoft COCO*, ECCV 2014; cocodataset.org, Data format)."""

from collections.abc import Iterable
from typing import Any

from emx_shared.contracts.findings import FINDINGS
from emx_shared.contracts.report import DISCLAIMER
from explainmyxray.cli.runs.run_result import RunResult

_CATEGORIES = {finding.label: number for number, finding in enumerate(FINDINGS, start=1)}
"""Each finding has the same number in every file."""


def coco_boxes(results: Iterable[RunResult]) -> dict[str, Any]:
    """Return the boxes of all reports, in pixels of the original images: x, y, width, height.

    Files without a report aren't listed, as nothing is known of their boxes; a file whose report has no finding is
    listed without annotations. An abstention is no such report.
    """
    categories = dict(_CATEGORIES)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for result in results:
        report = result.report
        if report is None or report.abstained:
            continue
        image = {"id": len(images) + 1, "file_name": result.name}
        images.append({**image, "width": report.image.width, "height": report.image.height})
        for location in report.locations:
            box = location.box
            width, height = box.xmax - box.xmin, box.ymax - box.ymin
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": categories.setdefault(location.label, len(categories) + 1),
                    "bbox": [box.xmin, box.ymin, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "laterality": location.laterality,
                    "score": location.probability,
                }
            )
    return {
        "info": {"description": DISCLAIMER},
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": number, "name": label, "supercategory": "finding"} for label, number in categories.items()
        ],
    }
