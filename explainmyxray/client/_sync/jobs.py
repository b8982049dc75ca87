# Generated from ../_async/jobs.py by: python scripts/generate_sync_client.py
# Don't edit this file: change that one, and run the command.
"""``client.jobs``: submit images, wait for their reports, and fetch or erase them."""

import math
import time
from collections.abc import Iterator
from typing import Literal, Unpack

from emx_shared.contracts.report import Report
from explainmyxray.client._sync.session import HttpSession
from explainmyxray.client.errors import Conflict, StillRunning
from explainmyxray.client.events import JobEvent, subscribe_to_job
from explainmyxray.client.requests import (
    LONGEST_POLL,
    POLL_INTERVAL,
    ApiRequest,
    as_bytes,
    as_model,
    as_nothing,
    as_texts,
    given,
    id_of,
    idempotency,
)
from explainmyxray.client.resources import Erased, Job, JobFilter, JobOptions, JobPage, RenderingFormat, Upload
from explainmyxray.image_input import XRay, file_bytes


class Jobs:
    """The jobs of a server. Every method raises ApiError if the server refuses or is unavailable."""

    def __init__(self, session: HttpSession) -> None:
        self._session = session

    def submit(
        self, image: XRay | Upload, *, idempotency_key: str | None = None, **options: Unpack[JobOptions]
    ) -> Job:
        """Submit an image and return its job at once.

        Args:
            image: The radiograph, or an upload of it.
            idempotency_key: Submissions with the same key are one job. By default each call makes a job of its
                own, and its retries don't make another.
            **options: See JobOptions.

        Returns:
            The job, usually queued.

        Raises:
            BadImage: The image is invalid; RejectedImage, a subclass, if the server says so.
            InvalidRequest: An option is invalid.
            Conflict: The idempotency key was used for another request.
        """
        headers = idempotency(idempotency_key)
        if isinstance(image, Upload):
            body = {"upload": image.id, **given(options)}
            return self._session.send(ApiRequest("POST", "/v1/jobs", as_model(Job), json=body, headers=headers))
        files = [("file", file_bytes(image))]
        return self._session.send(
            ApiRequest("POST", "/v1/jobs", as_model(Job), form=as_texts(options), files=files, headers=headers)
        )

    def get(self, job: Job | str) -> Job:
        """Fetch a job's current state, with its report once it has succeeded.

        Raises:
            NotFound: The job doesn't exist or belongs to another tenant.
        """
        return self._poll(job, 0)

    def list(self, *, include_summary: bool = False, **filters: Unpack[JobFilter]) -> Iterator[Job]:
        """List jobs without their reports, newest first. Pages are fetched as they are needed.

        Args:
            include_summary: Whether each job with a report has its ``summary``.
            **filters: See JobFilter.

        Raises:
            InvalidRequest: A condition is invalid, such as a finding that the server doesn't know.
        """
        wanted = as_texts(filters) | ({"include": "summary"} if include_summary else {})
        cursor = None
        while True:
            params = wanted | {"limit": "100"} | ({"cursor": cursor} if cursor else {})
            page = self._session.send(ApiRequest("GET", "/v1/jobs", as_model(JobPage), params=params))
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def wait(self, job: Job | str, timeout: float | None = None) -> Job:
        """Wait until a job has ended, in whatever state.

        Args:
            job: The job or its id.
            timeout: Seconds to wait; None for no limit.

        Returns:
            The ended job. Look at its ``report`` and ``failure``.

        Raises:
            StillRunning: The job hasn't ended within the timeout.
            NotFound: The job doesn't exist or belongs to another tenant.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            asked = time.monotonic()
            found = self._poll(job, math.ceil(max(0.0, min(LONGEST_POLL, deadline - asked))))
            if found.ended:
                return found
            now = time.monotonic()
            if now >= deadline:
                raise StillRunning(
                    f"The job is still {found.state} after {timeout:g} s. It continues on the server."
                )
            if now - asked < POLL_INTERVAL:  # a server that is stopping answers long polls at once
                time.sleep(min(POLL_INTERVAL, deadline - now))

    def events(self, job: Job | str) -> Iterator[JobEvent]:
        """Yield a job's events from its beginning to Ended. The stream resumes where the connection breaks.

        Raises:
            NotFound: The job doesn't exist or belongs to another tenant.
        """
        return self._session.stream(subscribe_to_job(job, self._session.retry_policy))

    def cancel(self, job: Job | str) -> Job:
        """Cancel a job that is queued or running. Cancelling a cancelled job changes nothing.

        Raises:
            Conflict: The job has already ended in another state.
            NotFound: The job doesn't exist or belongs to another tenant.
        """
        try:
            return self._session.send(ApiRequest("POST", f"/v1/jobs/{id_of(job)}/cancel", as_model(Job)))
        except Conflict:
            found = self.get(job)
            if found.state != "cancelled":
                raise
            return found

    def erase(self, job: Job | str) -> None:
        """Erase a job's image and report permanently.

        Raises:
            NotFound: The job doesn't exist or belongs to another tenant.
        """
        self._session.send(ApiRequest("DELETE", f"/v1/jobs/{id_of(job)}", as_nothing, done_if_repeated=(404,)))

    def erase_study(self, study: str) -> int:
        """Erase all jobs of a study permanently, and return how many there were."""
        return self._erase_all({"study": study})

    def erase_patient(self, patient: str) -> int:
        """Erase all jobs of a patient permanently, and return how many there were."""
        return self._erase_all({"patient": patient})

    def report(self, job: Job | str) -> Report:
        """Fetch a job's report.

        Raises:
            Conflict: The job has no report yet, or ended without a report.
            NotFound: The job doesn't exist or belongs to another tenant.
        """
        return self._session.send(ApiRequest("GET", f"/v1/jobs/{id_of(job)}/report.json", as_model(Report)))

    def rendering(self, job: Job | str, format: RenderingFormat) -> bytes:
        """Fetch a job's report as a file.

        Args:
            job: The job or its id.
            format: json, txt, html, pdf, or png for the image with its boxes.

        Returns:
            The file's bytes.

        Raises:
            Conflict: The job has no report yet, or ended without a report.
            NotFound: The job doesn't exist, belongs to another tenant, or its image is no longer stored.
        """
        if format == "png":
            return self.overlay(job)
        return self._session.send(ApiRequest("GET", f"/v1/jobs/{id_of(job)}/report.{format}", as_bytes))

    def overlay(self, job: Job | str, longest_side: int | None = None) -> bytes:
        """Fetch the image with a labelled box around every finding.

        Args:
            job: The job or its id.
            longest_side: Pixels of the picture's longer side, 32 to 8192; default the image's own.

        Returns:
            A PNG file's bytes.

        Raises:
            Conflict: The job has no report yet, or ended without a report.
            NotFound: The job doesn't exist, belongs to another tenant, or its image is no longer stored.
        """
        params = {"longest_side": str(longest_side)} if longest_side else {}
        return self._session.send(ApiRequest("GET", f"/v1/jobs/{id_of(job)}/overlay.png", as_bytes, params=params))

    def image(self, job: Job | str, depth: Literal[8, 16] = 8) -> bytes:
        """Fetch the image as it was read: upright, in gray, without boxes.

        Args:
            job: The job or its id.
            depth: Bits of a pixel. With 16, an image of more than 8 bits keeps its depth, and the PNG's text
                ``Window`` says how to show it; others have 8 bits all the same.

        Returns:
            A PNG file's bytes.

        Raises:
            NotFound: The job doesn't exist, belongs to another tenant, or its image is no longer stored.
        """
        params = {} if depth == 8 else {"depth": str(depth)}
        return self._session.send(ApiRequest("GET", f"/v1/jobs/{id_of(job)}/image.png", as_bytes, params=params))

    def input(self, job: Job | str) -> bytes:
        """Fetch the image's file as it was submitted.

        Raises:
            NotFound: The job doesn't exist, belongs to another tenant, or its image is no longer stored.
        """
        return self._session.send(ApiRequest("GET", f"/v1/jobs/{id_of(job)}/input", as_bytes))

    def export_study(self, study: str) -> bytes:
        """Fetch all that is stored of a study: requests, reports, images and webhooks.

        Returns:
            A ZIP file's bytes.
        """
        return self._export({"study": study})

    def export_patient(self, patient: str) -> bytes:
        """Fetch all that is stored of a patient: requests, reports, images and webhooks.

        Returns:
            A ZIP file's bytes.
        """
        return self._export({"patient": patient})

    def _export(self, group: dict[str, str]) -> bytes:
        return self._session.send(ApiRequest("GET", "/v1/export", as_bytes, params=group))

    def _poll(self, job: Job | str, wait: int) -> Job:
        """Fetch a job when it ends, or after ``wait`` seconds."""
        params = {"wait": str(wait)} if wait else {}
        return self._session.send(
            ApiRequest("GET", f"/v1/jobs/{id_of(job)}", as_model(Job), params=params, held_for=wait)
        )

    def _erase_all(self, group: dict[str, str]) -> int:
        erased = self._session.send(ApiRequest("DELETE", "/v1/jobs", as_model(Erased), params=group))
        return erased.erased
