"""The client of an ExplainMyXray server."""

from types import TracebackType
from typing import Any, Unpack

from explainmyxray.client._async.batches import AsyncBatches
from explainmyxray.client._async.feedback import AsyncReaderFeedback
from explainmyxray.client._async.jobs import AsyncJobs
from explainmyxray.client._async.session import AsyncHttpSession
from explainmyxray.client._async.uploads import AsyncUploads
from explainmyxray.client._async.webhooks import AsyncWebhooks
from explainmyxray.client.connection import Connection
from explainmyxray.client.errors import NoReport
from explainmyxray.client.requests import ApiRequest, as_model, as_object
from explainmyxray.client.resources import Job, JobOptions, Readiness, Upload
from explainmyxray.client.retry_policy import RetryPolicy
from explainmyxray.image_input import XRay


class AsyncClient:
    """An ExplainMyXray server, for asyncio programs.

    Every method raises ApiError if the server refuses or is unavailable, with a subclass for each thing that a
    caller can do something about. A request that broke, or that the server asks to repeat (429, 502, 503, 504), is
    sent again with the same idempotency key, so that it is carried out once.

    Tasks of one event loop may share a client.

    Args:
        url: The server's address; default EMX_URL, else http://127.0.0.1:8000.
        api_key: ``emx_…``; default EMX_API_KEY, else no key is sent.
        timeout: Seconds that the server may stay silent.
        retries: How often a request is sent again.

    Attributes:
        jobs: Submit images, wait for reports, fetch and erase them.
        batches: Submit many images at once.
        uploads: Put images straight into the server's store.
        feedback: What readers say of reports, and a folder of it to train on.
        webhooks: Signing secrets, deliveries, and listening.

    Raises:
        InvalidConnection: The address or the key is malformed.
    """

    def __init__(
        self, url: str | None = None, api_key: str | None = None, timeout: float = 30.0, retries: int = 4
    ) -> None:
        self._session = AsyncHttpSession(Connection.resolve(url, api_key, timeout), RetryPolicy(retries))
        self.jobs = AsyncJobs(self._session)
        self.batches = AsyncBatches(self._session)
        self.uploads = AsyncUploads(self._session)
        self.feedback = AsyncReaderFeedback(self._session, self.jobs)
        self.webhooks = AsyncWebhooks(self._session)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._session.connection.url

    async def read(
        self,
        image: XRay | Upload,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Submit an image and wait for its report: ``jobs.submit`` and ``jobs.wait`` in one call.

        Args:
            image: The radiograph, or an upload of it.
            timeout: Seconds to wait for the report; None for no limit.
            idempotency_key: Submissions with the same key are one job.
            **options: See JobOptions.

        Returns:
            The job, with its report.

        Raises:
            BadImage: The image is invalid; RejectedImage, a subclass, if the server says so.
            NoReport: The job failed, expired or was cancelled.
            StillRunning: There is no report within the timeout. The job continues on the server.
        """
        job = await self.jobs.submit(image, idempotency_key=idempotency_key, **options)
        ended = await self.jobs.wait(job, timeout)
        if ended.report is None:
            raise NoReport(ended)
        return ended

    async def ready(self) -> Readiness:
        """Check whether the server has everything that a report needs. A server that isn't ready is no error."""
        return await self._session.send(ApiRequest("GET", "/readyz", as_model(Readiness), success_statuses=(503,)))

    async def report_schema(self) -> dict[str, Any]:
        """Fetch the JSON Schema of the server's reports."""
        return await self._session.send(ApiRequest("GET", "/v1/schema/report", as_object))

    async def aclose(self) -> None:
        """Close all connections. The client can't be used afterwards."""
        await self._session.aclose()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
