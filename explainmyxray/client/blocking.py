"""The client for programs that wait."""

import contextlib
import itertools
import math
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Unpack

import httpx

from emx_shared.contracts.report import Report
from explainmyxray.client.api import Api, manifest_of
from explainmyxray.client.connection import Connection
from explainmyxray.client.errors import NotFound
from explainmyxray.client.events import JobEvent, SignedEvent, all_events, job_events
from explainmyxray.client.exchange import Answer, Flow, Pause, Step, T
from explainmyxray.client.patience import Patience
from explainmyxray.client.resources import (
    Batch,
    BatchItem,
    BatchOptions,
    Job,
    JobFilter,
    JobOptions,
    ManifestKind,
    Readiness,
    RenderingKind,
    Upload,
)
from explainmyxray.client.stream import E, Subscription
from explainmyxray.image_input import XRay, file_bytes


class Client:
    """A server of ExplainMyXray. May be used by several threads.

    Every method raises ApiError, of which there is a subclass for each thing that a caller can do something about.
    What may be sent twice is tried again where the connection breaks or the server asks to (429, 502, 503, 504).

    Parameters:
        url: the server's address; None for EMX_URL, else http://127.0.0.1:8000.
        api_key: emx_…; None for EMX_API_KEY, else none is shown.
        timeout: seconds that the server may be silent.
        retries: how often to try again.
    """

    def __init__(
        self, url: str | None = None, api_key: str | None = None, timeout: float = 30.0, retries: int = 4
    ) -> None:
        self._connection = Connection.to(url, api_key, timeout)
        self._api = Api(Patience(retries))
        self._http = httpx.Client()

    @property
    def url(self) -> str:
        return self._connection.url

    def submit(
        self, image: XRay | Upload, *, idempotency_key: str | None = None, **options: Unpack[JobOptions]
    ) -> Job:
        """Submit a study, or an image that was uploaded before. Also raises emx_shared.imaging.BadImage, OSError.

        Without an ``idempotency_key`` each call is a job of its own, however often it is tried.
        """
        return self._run(self._api.submit(_content(image), options, idempotency_key))

    def read(
        self,
        image: XRay | Upload,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Submit a study and wait for its report. Also raises NoReport; StillRunning after ``timeout`` seconds."""
        return self._run(self._api.read(_content(image), options, idempotency_key, timeout))

    def job(self, job: Job | str) -> Job:
        """As it is now."""
        return self._run(self._api.job(job))

    def wait(self, job: Job | str, timeout: float | None = None) -> Job:
        """The job once it has ended, however it did. Raises StillRunning after ``timeout`` seconds."""
        return self._run(self._api.wait(job, timeout))

    def events(self, job: Job | str) -> Iterator[JobEvent]:
        """What happens to a job, from its beginning to Ended; goes on by itself where the connection breaks."""
        return self._listen(job_events(job, self._api.patience))

    def jobs(self, **wanted: Unpack[JobFilter]) -> Iterator[Job]:
        """Jobs without their reports, the newest first; pages are fetched as they are needed."""
        cursor = None
        while True:
            page = self._run(self._api.page(wanted, cursor))
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def cancel(self, job: Job | str) -> Job:
        """Raises Conflict for one that has ended otherwise."""
        return self._run(self._api.cancel(job))

    def erase(self, job: Job | str) -> None:
        """Erase image and report for good."""
        self._run(self._api.erase(job))

    def erase_study(self, study: str) -> int:
        """Erase all jobs of a study for good; how many there were."""
        return self._run(self._api.erase_group("study", study))

    def erase_patient(self, patient: str) -> int:
        """Erase all jobs of a patient for good; how many there were."""
        return self._run(self._api.erase_group("patient", patient))

    def report(self, job: Job | str) -> Report:
        """Raises Conflict where there is none (yet)."""
        return self._run(self._api.report(job))

    def rendering(self, job: Job | str, kind: RenderingKind) -> bytes:
        """The report's file: JSON, text, HTML, PDF, or a PNG of the image with boxes."""
        return self._run(self._api.rendering(job, kind))

    def overlay(self, job: Job | str, longest_side: int | None = None) -> bytes:
        """A PNG of the image with its boxes. ``longest_side``: pixels; the image's own where it is None."""
        return self._run(self._api.overlay(job, longest_side))

    def upload(self, image: XRay) -> Upload:
        """Put an image into the server's store, to be submitted within the hour."""
        return self._run(self._api.upload(file_bytes(image)))

    def submit_batch(
        self,
        images: Iterable[XRay],
        *,
        names: Iterable[str | None] | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[BatchOptions],
    ) -> Batch:
        """Submit many studies, which are uploaded one by one; ``names`` are your own for them.

        An image that can't be read fails its own item alone. Also raises BadImage of emx_shared.imaging, OSError.
        """
        uploads = [
            (self.upload(image), name)
            for image, name in zip(images, names or itertools.repeat(None), strict=False)
        ]
        manifest = manifest_of(uploads)
        return self.submit_manifest(manifest, "application/x-ndjson", idempotency_key=idempotency_key, **options)

    def submit_manifest(
        self,
        manifest: bytes,
        kind: ManifestKind,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[BatchOptions],
    ) -> Batch:
        """Submit studies whose images are uploaded, lie in the server's store, or are other jobs'."""
        return self._run(self._api.submit_manifest(manifest, kind, options, idempotency_key))

    def batch(self, batch: Batch | str) -> Batch:
        """As it is now."""
        return self._run(self._api.batch(batch))

    def batch_progress(self, batch: Batch | str, timeout: float | None = None) -> Iterator[Batch]:
        """The batch, again whenever items have ended, until all have. Raises StillRunning after ``timeout`` s."""
        give_up = math.inf if timeout is None else time.monotonic() + timeout
        found = None
        while found is None or not found.ended:
            found = self._run(self._api.next_look(batch, found, give_up))
            yield found

    def batch_items(self, batch: Batch | str) -> Iterator[BatchItem]:
        """The rows of a batch in order, with their jobs and states."""
        row: int | None = 0
        while row is not None:
            page = self._run(self._api.items(batch, row))
            yield from page.items
            row = page.next_row

    def batch_results(self, batch: Batch | str) -> Iterator[Job]:
        """The items' jobs with their reports, in the order of the rows, as they are now.

        Left out are items that haven't been made jobs yet, or never were as the batch was cancelled.
        """
        for item in self.batch_items(batch):
            with contextlib.suppress(NotFound):
                yield self.job(item.id)

    def pause_batch(self, batch: Batch | str) -> Batch:
        """Submit no more items; those that wait or are being read go on."""
        return self._run(self._api.change_batch(batch, "pause"))

    def resume_batch(self, batch: Batch | str) -> Batch:
        """Go on with a batch that was paused."""
        return self._run(self._api.change_batch(batch, "resume"))

    def retry_batch(self, batch: Batch | str) -> Batch:
        """A new batch of the items that have failed so far. Raises Conflict where none has."""
        return self._run(self._api.change_batch(batch, "retry"))

    def cancel_batch(self, batch: Batch | str) -> Batch:
        """Cancel what hasn't ended. Raises Conflict where all has."""
        return self._run(self._api.cancel_batch(batch))

    def erase_batch(self, batch: Batch | str) -> None:
        """Erase it with all its images and reports for good. It is unknown from now on."""
        self._run(self._api.erase_batch(batch))

    def listen(self) -> Iterator[SignedEvent]:
        """Webhooks of all jobs from now on, for development. Never ends; what happens while cut off is lost."""
        return self._listen(all_events())

    def ready(self) -> Readiness:
        """Whether the server has all that a report needs."""
        return self._run(self._api.ready())

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        answer: Answer = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as end:
                return end.value
            answer = self._take(step)

    def _take(self, step: Step) -> Answer:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return self._http.send(self._connection.request(self._http, step))
        except httpx.TransportError as error:
            return error

    def _listen(self, wanted: Subscription[E]) -> Iterator[E]:
        while True:
            trouble: Answer = None
            request = self._connection.request(self._http, wanted.opening(), stream=True)
            try:
                answer = self._http.send(request, stream=True)
                try:
                    wanted.check(answer)
                    if answer.is_success:
                        for received in answer.iter_bytes():
                            yield from wanted.feed(answer, received)
                            if wanted.over:
                                return
                    else:
                        answer.read()
                        trouble = answer
                finally:
                    answer.close()
            except httpx.TransportError as error:
                trouble = error
            time.sleep(wanted.pause(trouble))


def _content(image: XRay | Upload) -> bytes | Upload:
    return image if isinstance(image, Upload) else file_bytes(image)
