"""What readers say of reports, and a folder of it to train on."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypedDict

from emx_shared.contracts.box_table import BOX_COLUMNS
from emx_shared.contracts.report import Box
from explainmyxray.client.resources import Resource

Verdict = Literal["agree", "disagree"]
LocationVerdict = Literal["agreed", "corrected", "rejected", "added"]


class ReviewedLocation(Resource):
    """What a reader says of one location of a report, or a location that the reader adds.

    ``agreed`` and ``rejected`` need ``of`` alone: the server takes the rest from the report.

    Attributes:
        of: Index of the location in ``report.locations``; None exactly for an added one.
        verdict: agreed, corrected, rejected or added.
        label: The finding, in the words of the finding vocabulary.
        laterality: The patient's side, left or right; None for findings that have none.
        box: In pixels of the original image, turned upright. It must lie within the image.
        code: The label as an identifier; set by the server.
        box_normalised: The box in fractions of the image, 0 to 1; set by the server.
        colour: ``#rrggbb`` of the finding; set by the server.
    """

    of: int | None = None
    verdict: LocationVerdict
    label: str | None = None
    laterality: Literal["left", "right"] | None = None
    box: Box | None = None
    code: str | None = None
    box_normalised: Box | None = None
    colour: str | None = None

    def sent(self) -> dict[str, Any]:
        """Return what the server takes; what is None is left out, except ``of``."""
        rest = self.model_dump(mode="json", include={"label", "laterality", "box"}, exclude_none=True)
        return {"of": self.of, "verdict": self.verdict, **rest}


class Feedback(Resource):
    """One version of readers' feedback on a report. Locations that it doesn't mention were not reviewed.

    Attributes:
        job: Id of the job whose report it is about.
        version: From 1; the newest counts.
        reviewed_at: When the server received it.
        reviewer: The reader's initials.
        verdict: agree or disagree, with the report as a whole.
        comment: The reader's words.
        locations: What the reader says of single locations.
    """

    job: str
    version: int
    reviewed_at: datetime
    reviewer: str
    verdict: Verdict
    comment: str | None = None
    locations: tuple[ReviewedLocation, ...] = ()


class FeedbackVersions(Resource):
    """Every version of the feedback on one report.

    Attributes:
        items: Oldest first.
    """

    items: tuple[Feedback, ...]


class FeedbackPage(Resource):
    """A page of the newest feedback of reviewed jobs.

    Attributes:
        items: In the order of the jobs' ids. A page may be empty though more pages follow.
        next_cursor: Start of the next page; None on the last page.
    """

    items: tuple[Feedback, ...]
    next_cursor: str | None = None


class FindingAgreement(Resource):
    """How often readers agreed with one finding.

    Attributes:
        label: The finding. What was corrected counts by the report's label.
        agreed: Locations that readers agreed with.
        corrected: Locations whose label, side or box readers changed.
        rejected: Locations that readers deleted.
        added: Locations that readers added.
    """

    label: str
    agreed: int = 0
    corrected: int = 0
    rejected: int = 0
    added: int = 0


class FeedbackAgreement(Resource):
    """How far readers agree with the reports that they reviewed, by the newest version of each job.

    Attributes:
        jobs: Reviewed jobs.
        agree: Jobs whose reader agrees with the report as a whole.
        disagree: Jobs whose reader doesn't.
        findings: Counts for each finding that was mentioned, in the order of the vocabulary.
    """

    jobs: int
    agree: int
    disagree: int
    findings: tuple[FindingAgreement, ...] = ()


class FeedbackFilter(TypedDict, total=False):
    """Conditions on listed feedback. The newest version of a job must meet all of them.

    Attributes:
        label: A finding that it mentions, in the words of the finding vocabulary.
        verdict: agree or disagree.
    """

    label: str
    verdict: Verdict


@dataclass(frozen=True)
class FeedbackExport:
    """A folder with readers' boxes and their images, as ``finetune_phase2 --csv FOLDER/boxes.csv`` takes it.

    Attributes:
        table: ``boxes.csv`` in it: image, term, xmin, ymin, xmax, ymax, patient.
        images: Number of images in the table.
        boxes: Number of boxes in the table.
        missing: Files of images that are no longer stored. Their rows are left out.
    """

    table: Path
    images: int
    boxes: int
    missing: tuple[str, ...] = ()


class TableOfBoxes:
    """The server's table of boxes, on its way into a folder. It is written last, when its images are there."""

    def __init__(self, columns: Sequence[str], rows: Mapping[str, list[dict[str, str]]]) -> None:
        self._columns, self._rows = columns, dict(rows)
        self._missing: list[str] = []

    @classmethod
    def parse(cls, content: bytes) -> "TableOfBoxes":
        """Parse the table. Raises ValueError if it isn't one, or names an image outside a folder."""
        reader = csv.DictReader(io.StringIO(content.decode(), newline=""))
        columns, rows = tuple(reader.fieldnames or ()), dict[str, list[dict[str, str]]]()
        if not set(BOX_COLUMNS) <= set(columns):
            raise ValueError("not a table of boxes")
        for row in reader:
            rows.setdefault(row["image"], []).append(row)
        if not all(_IMAGE.fullmatch(name) for name in rows):
            raise ValueError("not the name of an image")
        return cls(columns, rows)

    def images(self) -> list[str]:
        """Return the name of each image, ``{job}.png``."""
        return list(self._rows)

    def leave_out(self, image: str) -> None:
        """Leave out the rows of an image that is no longer stored."""
        self._missing.append(image)
        del self._rows[image]

    def write(self, folder: Path) -> FeedbackExport:
        """Write ``boxes.csv``, and return how much is in it."""
        rows = [row for some in self._rows.values() for row in some]
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, self._columns)
        writer.writeheader()
        writer.writerows(rows)
        table = folder / "boxes.csv"
        write_whole(table, buffer.getvalue().encode())
        boxes = sum(bool(row["xmin"]) for row in rows)
        return FeedbackExport(table, len(self._rows), boxes, tuple(self._missing))


_IMAGE = re.compile(r"[0-9a-f-]{36}\.png")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all; its folder is made if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)
