"""The client for programs that do other things meanwhile (asyncio)."""

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import AsyncIterator, Iterable
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


class AsyncClient:
    """Client, with methods to be awaited.

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
        self._http = httpx.AsyncClient()

    @property
    def url(self) -> str:
        return self._connection.url

    async def submit(
        self, image: XRay | Upload, *, idempotency_key: str | None = None, **options: Unpack[JobOptions]
    ) -> Job:
        """Submit a study, or an image that was uploaded before. Also raises emx_shared.imaging.BadImage, OSError.

        Without an ``idempotency_key`` each call is a job of its own, however often it is tried.
        """
        return await self._run(self._api.submit(await _content(image), options, idempotency_key))

    async def read(
        self,
        image: XRay | Upload,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Submit a study and wait for its report. Also raises NoReport; StillRunning after ``timeout`` seconds."""
        return await self._run(self._api.read(await _content(image), options, idempotency_key, timeout))

    async def job(self, job: Job | str) -> Job:
        """As it is now."""
        return await self._run(self._api.job(job))

    async def wait(self, job: Job | str, timeout: float | None = None) -> Job:
        """The job once it has ended, however it did. Raises StillRunning after ``timeout`` seconds."""
        return await self._run(self._api.wait(job, timeout))

    def events(self, job: Job | str) -> AsyncIterator[JobEvent]:
        """What happens to a job, from its beginning to Ended; goes on by itself where the connection breaks."""
        return self._listen(job_events(job, self._api.patience))

    async def jobs(self, **wanted: Unpack[JobFilter]) -> AsyncIterator[Job]:
        """Jobs without their reports, the newest first; pages are fetched as they are needed."""
        cursor = None
        while True:
            page = await self._run(self._api.page(wanted, cursor))
            for job in page.items:
                yield job
            cursor = page.next_cursor
            if cursor is None:
                return

    async def cancel(self, job: Job | str) -> Job:
        """Raises Conflict for one that has ended otherwise."""
        return await self._run(self._api.cancel(job))

    async def erase(self, job: Job | str) -> None:
        """Erase image and report for good."""
        await self._run(self._api.erase(job))

    async def erase_study(self, study: str) -> int:
        """Erase all jobs of a study for good; how many there were."""
        return await self._run(self._api.erase_group("study", study))

    async def erase_patient(self, patient: str) -> int:
        """Erase all jobs of a patient for good; how many there were."""
        return await self._run(self._api.erase_group("patient", patient))

    async def report(self, job: Job | str) -> Report:
        """Raises Conflict where there is none (yet)."""
        return await self._run(self._api.report(job))

    async def rendering(self, job: Job | str, kind: RenderingKind) -> bytes:
        """The report's file: JSON, text, HTML, PDF, or a PNG of the image with boxes."""
        return await self._run(self._api.rendering(job, kind))

    async def overlay(self, job: Job | str, longest_side: int | None = None) -> bytes:
        """A PNG of the image with its boxes. ``longest_side``: pixels; the image's own where it is None."""
        return await self._run(self._api.overlay(job, longest_side))

    async def upload(self, image: XRay) -> Upload:
        """Put an image into the server's store, to be submitted within the hour."""
        return await self._run(self._api.upload(await _bytes(image)))

    async def submit_batch(
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
            (await self.upload(image), name)
            for image, name in zip(images, names or itertools.repeat(None), strict=False)
        ]
        manifest = manifest_of(uploads)
        return await self.submit_manifest(
            manifest, "application/x-ndjson", idempotency_key=idempotency_key, **options
        )

    async def submit_manifest(
        self,
        manifest: bytes,
        kind: ManifestKind,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[BatchOptions],
    ) -> Batch:
        """Submit studies whose images are uploaded, lie in the server's store, or are other jobs'."""
        return await self._run(self._api.submit_manifest(manifest, kind, options, idempotency_key))

    async def batch(self, batch: Batch | str) -> Batch:
        """As it is now."""
        return await self._run(self._api.batch(batch))

    async def batch_progress(self, batch: Batch | str, timeout: float | None = None) -> AsyncIterator[Batch]:
        """The batch, again whenever items have ended, until all have. Raises StillRunning after ``timeout`` s."""
        give_up = math.inf if timeout is None else time.monotonic() + timeout
        found = None
        while found is None or not found.ended:
            found = await self._run(self._api.next_look(batch, found, give_up))
            yield found

    async def batch_items(self, batch: Batch | str) -> AsyncIterator[BatchItem]:
        """The rows of a batch in order, with their jobs and states."""
        row: int | None = 0
        while row is not None:
            page = await self._run(self._api.items(batch, row))
            for item in page.items:
                yield item
            row = page.next_row

    async def batch_results(self, batch: Batch | str) -> AsyncIterator[Job]:
        """The items' jobs with their reports, in the order of the rows, as they are now.

        Left out are items that haven't been made jobs yet, or never were as the batch was cancelled.
        """
        async for item in self.batch_items(batch):
            with contextlib.suppress(NotFound):
                yield await self.job(item.id)

    async def pause_batch(self, batch: Batch | str) -> Batch:
        """Submit no more items; those that wait or are being read go on."""
        return await self._run(self._api.change_batch(batch, "pause"))

    async def resume_batch(self, batch: Batch | str) -> Batch:
        """Go on with a batch that was paused."""
        return await self._run(self._api.change_batch(batch, "resume"))

    async def retry_batch(self, batch: Batch | str) -> Batch:
        """A new batch of the items that have failed so far. Raises Conflict where none has."""
        return await self._run(self._api.change_batch(batch, "retry"))

    async def cancel_batch(self, batch: Batch | str) -> Batch:
        """Cancel what hasn't ended. Raises Conflict where all has."""
        return await self._run(self._api.cancel_batch(batch))

    async def erase_batch(self, batch: Batch | str) -> None:
        """Erase it with all its images and reports for good. It is unknown from now on."""
        await self._run(self._api.erase_batch(batch))

    def listen(self) -> AsyncIterator[SignedEvent]:
        """Webhooks of all jobs from now on, for development. Never ends; what happens while cut off is lost."""
        return self._listen(all_events())

    async def ready(self) -> Readiness:
        """Whether the server has all that a report needs."""
        return await self._run(self._api.ready())

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self, flow: Flow[T]) -> T:
        answer: Answer = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as end:
                return end.value
            answer = await self._take(step)

    async def _take(self, step: Step) -> Answer:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return await self._http.send(self._connection.request(self._http, step))
        except httpx.TransportError as error:
            return error

    async def _listen(self, wanted: Subscription[E]) -> AsyncIterator[E]:
        while True:
            trouble: Answer = None
            request = self._connection.request(self._http, wanted.opening(), stream=True)
            try:
                answer = await self._http.send(request, stream=True)
                try:
                    wanted.check(answer)
                    if answer.is_success:
                        async for received in answer.aiter_bytes():
                            for event in wanted.feed(answer, received):
                                yield event
                            if wanted.over:
                                return
                    else:
                        await answer.aread()
                        trouble = answer
                finally:
                    await answer.aclose()
            except httpx.TransportError as error:
                trouble = error
            await asyncio.sleep(wanted.pause(trouble))


async def _content(image: XRay | Upload) -> bytes | Upload:
    return image if isinstance(image, Upload) else await _bytes(image)


async def _bytes(image: XRay) -> bytes:
    """Files are read, and pixels packed, beside the event loop."""
    return await asyncio.to_thread(file_bytes, image)
