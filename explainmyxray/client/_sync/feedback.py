# Generated from ../_async/feedback.py by: python scripts/generate_sync_client.py
# Don't edit this file: change that one, and run the command.
"""``client.feedback``: what readers say of reports, to look at and to train on."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import httpx

from explainmyxray.client._sync.jobs import Jobs
from explainmyxray.client._sync.session import HttpSession
from explainmyxray.client.errors import NotFound
from explainmyxray.client.feedback import (
    Feedback,
    FeedbackAgreement,
    FeedbackExport,
    FeedbackFilter,
    FeedbackPage,
    FeedbackVersions,
    ReviewedLocation,
    TableOfBoxes,
    Verdict,
    write_whole,
)
from explainmyxray.client.requests import ApiRequest, as_bytes, as_model, as_object, as_texts, given, id_of
from explainmyxray.client.resources import Job


class ReaderFeedback:
    """Feedback on a tenant's reports. Every method raises ApiError if the server refuses or is unavailable."""

    def __init__(self, session: HttpSession, jobs: Jobs) -> None:
        self._session, self._jobs = session, jobs

    def submit(
        self,
        job: Job | str,
        reviewer: str,
        verdict: Verdict,
        *,
        comment: str | None = None,
        locations: Sequence[ReviewedLocation] = (),
        after: int = 0,
    ) -> Feedback:
        """Add a version of the feedback on a job's report. The report itself never changes.

        The request isn't sent again when its answer is lost; ``versions`` shows whether it was carried out.

        Args:
            job: The job or its id.
            reviewer: The reader's initials, 1 to 8 letters or digits.
            verdict: Whether the reader agrees with the report as a whole: agree or disagree.
            comment: The reader's words, up to 2,000 characters.
            locations: What the reader says of single locations, at most 50. Locations of the report that aren't
                mentioned count as not reviewed.
            after: The version that this one follows, which must be the newest; 0 for the first.

        Raises:
            Conflict: Another reader was first (``feedback-conflict``), or the job has no report (``no-report``).
            InvalidRequest: A field is invalid, or doesn't fit the report.
            NotFound: The job doesn't exist or belongs to another tenant.
        """
        body: dict[str, Any] = {
            **given({"reviewer": reviewer, "verdict": verdict, "comment": comment, "after": after}),
            "locations": [location.sent() for location in locations],
        }
        path = f"/v1/jobs/{id_of(job)}/feedback"
        return self._session.send(ApiRequest("POST", path, as_model(Feedback), json=body, repeatable=False))

    def versions(self, job: Job | str) -> tuple[Feedback, ...]:
        """Fetch every version of the feedback on a job's report, oldest first.

        Raises:
            NotFound: The job doesn't exist or belongs to another tenant.
        """
        path = f"/v1/jobs/{id_of(job)}/feedback"
        return (self._session.send(ApiRequest("GET", path, as_model(FeedbackVersions)))).items

    def list(self, **filters: Unpack[FeedbackFilter]) -> Iterator[Feedback]:
        """List the newest feedback of each reviewed job. Pages are fetched as they are needed.

        Args:
            **filters: See FeedbackFilter.
        """
        cursor = None
        while True:
            params = as_texts(filters) | {"limit": "100"} | ({"cursor": cursor} if cursor else {})
            page = self._session.send(ApiRequest("GET", "/v1/feedback", as_model(FeedbackPage), params=params))
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def agreement(self) -> FeedbackAgreement:
        """Count how far readers agree with reports, as a whole and for each finding."""
        return self._session.send(ApiRequest("GET", "/v1/feedback/agreement", as_model(FeedbackAgreement)))

    def table(self) -> bytes:
        """Fetch readers' boxes as the table that ``finetune_phase2 --csv`` takes.

        Returns:
            A CSV file's bytes: image, term, xmin, ymin, xmax, ymax in fractions of the upright image, patient.
        """
        return self._session.send(ApiRequest("GET", "/v1/feedback.csv", as_bytes))

    def coco(self) -> dict[str, Any]:
        """Fetch readers' boxes as a COCO file, in pixels of the upright images."""
        return self._session.send(ApiRequest("GET", "/v1/feedback.coco.json", as_object))

    def export(self, folder: Path | str) -> FeedbackExport:
        """Write readers' boxes and their images into a folder: ``boxes.csv``, and ``{job}.png`` for each image.

        ``python -m emx_training.finetune_phase2 --csv FOLDER/boxes.csv`` trains on it. An image that is already
        there isn't fetched again; one that the server no longer stores is left out with its rows.

        Args:
            folder: Where to write. It is made if necessary; an older table in it is replaced.

        Returns:
            How much was written.
        """
        target = Path(folder)
        table = self._session.send(ApiRequest("GET", "/v1/feedback.csv", _as_table))
        for image in table.images():
            if (target / image).exists():
                continue
            try:
                write_whole(target / image, self._jobs.image(image.removesuffix(".png")))
            except NotFound:
                table.leave_out(image)
        return table.write(target)


def _as_table(answer: httpx.Response) -> TableOfBoxes:
    return TableOfBoxes.parse(answer.content)
