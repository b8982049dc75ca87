"""The shapes of readers' feedback on a report. Their texts are the API's documentation."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from emx_shared.contracts.findings import Laterality
from emx_shared.contracts.report import DISCLAIMER, Box
from emx_shared.ledger.records import LocationVerdict, Verdict

MOST_LOCATIONS = 50
"""Locations of one version."""

Reviewer = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9]{1,8}$")]
_Pixels = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DrawnBox(_Sent):
    """A rectangle in pixels of the original image, turned upright, from its upper left corner."""

    xmin: _Pixels
    ymin: _Pixels
    xmax: _Pixels
    ymax: _Pixels


class LocationFeedback(_Sent):
    """What a reader says of one location, or a location that the reader adds.

    ``agreed`` and ``rejected`` take label, laterality and box from the report where they are left out.
    """

    of: Annotated[int, Field(strict=True, ge=0)] | None = Field(
        description="Index of the location in the report; null exactly for an added one"
    )
    verdict: LocationVerdict
    label: str | None = Field(
        default=None, max_length=100, description="Finding, in the words of the finding vocabulary"
    )
    laterality: Laterality | None = Field(
        default=None, description="The patient's side; null exactly for findings that have none"
    )
    box: DrawnBox | None = None


class NewFeedback(_Sent):
    """A reader's feedback on a report. Locations that it doesn't mention count as not reviewed."""

    reviewer: Reviewer = Field(description="The reader's initials, 1 to 8 letters or digits")
    verdict: Verdict = Field(description="Whether the reader agrees with the report as a whole")
    comment: str | None = Field(default=None, max_length=2000)
    after: Annotated[int, Field(strict=True, ge=0)] = Field(
        default=0, description="The version that this one follows, the newest; 0 for the first"
    )
    locations: Annotated[list[LocationFeedback], Field(max_length=MOST_LOCATIONS)] = []


class ReviewedLocation(BaseModel):
    """What a reader said of one location."""

    of: int | None = Field(description="Index of the location in the report; null for an added one")
    verdict: LocationVerdict
    label: str
    code: str = Field(description="The label as an identifier, such as pleural_effusion")
    laterality: Laterality | None
    box: Box = Field(description="Pixels of the original image, turned upright")
    box_normalised: Box = Field(description="Fractions of the image's width and height, 0 to 1")
    colour: str = Field(description="#rrggbb, the finding's colour in every picture")


class FeedbackSummary(BaseModel):
    """The newest version of readers' feedback, in short."""

    version: int
    reviewed_at: datetime
    reviewer: str = Field(description="The reader's initials")
    verdict: Verdict


class Feedback(BaseModel):
    """One version of readers' feedback on a report."""

    job: str = Field(description="Id of the job whose report it is about")
    version: int = Field(description="From 1; the newest counts")
    reviewed_at: datetime
    reviewer: str = Field(description="The reader's initials")
    verdict: Verdict
    comment: str | None
    locations: list[ReviewedLocation] = Field(description="Locations of the report not in it were not reviewed")


class FeedbackVersions(BaseModel):
    """Every version of the feedback on one report."""

    items: list[Feedback] = Field(description="Oldest first")


class FeedbackList(BaseModel):
    """A page of the newest versions of reviewed jobs, in the order of the jobs' ids."""

    items: list[Feedback]
    unreadable: list[str] = Field(
        default=[],
        description="Ids of jobs whose feedback this server can't show: damaged, or written by a newer version",
    )
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one")


class FindingAgreement(BaseModel):
    """How often readers agreed with one finding. What was corrected counts by the report's label."""

    label: str
    agreed: int = 0
    corrected: int = 0
    rejected: int = 0
    added: int = 0


class FeedbackAgreement(BaseModel):
    """How far readers agree with the reports that they reviewed, by the newest version of each job."""

    jobs: int
    agree: int
    disagree: int
    findings: list[FindingAgreement] = Field(description="In the order of the vocabulary, as far as mentioned")


class CocoImage(BaseModel):
    """An image of a COCO file."""

    id: int
    file_name: str
    width: int
    height: int
    not_exhaustive_category_ids: list[int] = Field(
        description="Findings that the image may show besides, as LVIS has them: nobody reviewed them"
    )


class CocoAnnotation(BaseModel):
    """A box of a COCO file: x, y, width and height in pixels of the upright image."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int = 0
    laterality: Laterality | None


class CocoCategory(BaseModel):
    """A finding, numbered as the vocabulary has it, from 1."""

    id: int
    name: str
    supercategory: str = "finding"


class CocoFile(BaseModel):
    """Readers' boxes in the format of COCO (cocodataset.org, Data format)."""

    info: dict[str, str] = {"description": DISCLAIMER}
    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]
