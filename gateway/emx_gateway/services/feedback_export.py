"""Readers' boxes to train on: the table of phase 2, and COCO (Lin et al., ECCV 2014)."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from emx_gateway.feedback_schemas import CocoAnnotation, CocoCategory, CocoFile, CocoImage
from emx_gateway.services.feedback_pages import all_newest_feedback
from emx_shared.contracts.box_table import BOX_COLUMNS, OTHER, patient_digest
from emx_shared.contracts.findings import BY_LABEL, FINDINGS, TERMS
from emx_shared.contracts.report import ImageFacts, Report
from emx_shared.grammar import LocatedFinding, LocBox, MalformedReport, ReportText, parse
from emx_shared.ledger import Ledger
from emx_shared.ledger.records import FeedbackVersion, JobRecord, ReviewedLocation

_CATEGORIES = {finding.label: number for number, finding in enumerate(FINDINGS, start=1)}


@dataclass(frozen=True)
class ReviewedImage:
    """An image with the boxes that a reader agreed with, corrected or added.

    Attributes:
        file: name of the image's file.
        facts: of the upright image.
        patient: digest of the client's pseudonym, as dataset_prep writes it; empty where the job has none.
        boxes: in the reader's order.
        besides: what the image shows, or may show, without a box: labels of the vocabulary, and ``OTHER``. The
            image is normal if it has neither boxes nor any of these.
    """

    file: str
    facts: ImageFacts
    patient: str
    boxes: tuple[ReviewedLocation, ...]
    besides: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether training can read it: it has a box or is normal, and no more boxes than a report holds."""
        return (bool(self.boxes) or not self.besides) and _fits_a_report(self.boxes)


def reviewed_images(ledger: Ledger, tenant: str) -> Iterator[ReviewedImage]:
    """Yield a tenant's reviewed images that training can read, by the newest version of each."""
    for job, version in all_newest_feedback(ledger, tenant):
        outcome = ledger.if_readable(ledger.outcome, job.id)
        if outcome and outcome.report:
            image = reviewed_image(job, outcome.report, version)
            if image.usable:
                yield image


def reviewed_image(job: JobRecord, report: Report, version: FeedbackVersion) -> ReviewedImage:
    """Return what a reader's feedback says of an image.

    Locations that weren't reviewed may be there, and so may anything where a reader disagrees without a correction
    to show for it, or where the model declined the image and the reader drew nothing.
    """
    kept = [each for each in version.locations if each.verdict != "rejected"]
    boxes = tuple(each for each in kept if _term(each) in TERMS)
    reviewed = {each.of for each in version.locations}
    besides = [place.label for number, place in enumerate(report.locations) if number not in reviewed]
    besides += [each.label for each in kept if _term(each) not in TERMS]
    changed = any(each.verdict != "agreed" for each in version.locations)
    if (version.verdict == "disagree" and not changed) or (report.abstained and not kept):
        besides.append(OTHER)
    named = dict.fromkeys(label if label in BY_LABEL else OTHER for label in besides)
    return ReviewedImage(
        file=f"{job.id}.png",
        facts=report.image,
        patient=patient_digest(job.patient) if job.patient else "",
        boxes=boxes,
        besides=tuple(named),
    )


def box_table(images: Iterator[ReviewedImage]) -> Iterator[bytes]:
    """Yield the CSV that ``finetune_phase2 --csv`` takes, image by image."""
    yield _csv([(*BOX_COLUMNS, "patient")])
    for image in images:
        corners = (each.box_normalised for each in image.boxes)
        rows: list[tuple[object, ...]] = [
            (image.file, _term(each), box.xmin, box.ymin, box.xmax, box.ymax, image.patient)
            for each, box in zip(image.boxes, corners, strict=True)
        ]
        rows += [(image.file, label, "", "", "", "", image.patient) for label in image.besides]
        yield _csv(rows or [(image.file, "", "", "", "", "", image.patient)])


def coco_file(images: Iterator[ReviewedImage]) -> CocoFile:
    """Return the same images and boxes as COCO has them, in pixels of the upright images."""
    file = CocoFile(
        images=[],
        annotations=[],
        categories=[CocoCategory(id=number, name=label) for label, number in _CATEGORIES.items()],
    )
    for number, image in enumerate(images, start=1):
        unknown = _CATEGORIES.values() if OTHER in image.besides else (_CATEGORIES[one] for one in image.besides)
        file.images.append(
            CocoImage(
                id=number,
                file_name=image.file,
                width=image.facts.width,
                height=image.facts.height,
                not_exhaustive_category_ids=sorted(unknown),
            )
        )
        for each in image.boxes:
            width, height = each.box.xmax - each.box.xmin, each.box.ymax - each.box.ymin
            file.annotations.append(
                CocoAnnotation(
                    id=len(file.annotations) + 1,
                    image_id=number,
                    category_id=_CATEGORIES[each.label],
                    bbox=(each.box.xmin, each.box.ymin, width, height),
                    area=width * height,
                    laterality=each.laterality,
                )
            )
    return file


def _term(location: ReviewedLocation) -> str:
    return f"{location.label} {location.laterality}" if location.laterality else location.label


def _fits_a_report(boxes: tuple[ReviewedLocation, ...]) -> bool:
    """Return whether a report can hold these boxes: training refuses a table that has more."""
    located = tuple(
        LocatedFinding(
            *TERMS[_term(each)],
            LocBox.of_fractions(
                each.box_normalised.ymin,
                each.box_normalised.xmin,
                each.box_normalised.ymax,
                each.box_normalised.xmax,
            ),
        )
        for each in boxes
    )
    try:
        parse(str(ReportText("Findings.", located, "Impression.")))
    except MalformedReport:
        return False
    return True


def _csv(rows: list[tuple[object, ...]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode()
