"""``client.batches``: submit many images at once, follow them, and fetch their reports."""

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator, Iterable
from typing import Unpack

from explainmyxray.client._async.session import AsyncHttpSession
from explainmyxray.client._async.uploads import AsyncUploads
from explainmyxray.client.errors import Conflict, StillRunning
from explainmyxray.client.requests import (
    NDJSON,
    POLL_INTERVAL,
    ApiRequest,
    as_model,
    as_nothing,
    as_texts,
    id_of,
    idempotency,
    manifest_of,
)
from explainmyxray.client.resources import (
    Batch,
    BatchItem,
    BatchItems,
    BatchOptions,
    BatchPage,
    BatchResult,
    ItemState,
    ManifestType,
)
from explainmyxray.client.streams import ResultSubscription
from explainmyxray.image_input import XRay


class AsyncBatches:
    """The batches of a server. Every method raises ApiError if the server refuses or is unavailable."""

    def __init__(self, session: AsyncHttpSession) -> None:
        self._session = session
        self._uploads = AsyncUploads(session)

    async def create(
        self,
        images: Iterable[XRay],
        *,
        names: Iterable[str | None] | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[BatchOptions],
    ) -> Batch:
        """Upload images one by one, and submit them as a batch.

        An image that the server can't read fails its own item alone.

        Args:
            images: The radiographs, which are taken one at a time.
            names: The caller's name for each image, returned with its result.
            idempotency_key: Submissions with the same key are one batch. By default each call makes a batch of its
                own, and its retries don't make another.
            **options: See BatchOptions.

        Returns:
            The batch.

        Raises:
            BadImage: An image is invalid; RejectedImage, a subclass, if the server says so. No batch is made then.
            InvalidRequest: An option is invalid.
        """
        uploads = [
            (await self._uploads.create(image), name)
            for image, name in zip(images, names or itertools.repeat(None), strict=False)
        ]
        manifest = manifest_of(uploads)
        return await self.create_from_manifest(manifest, NDJSON, idempotency_key=idempotency_key, **options)

    async def create_from_manifest(
        self,
        manifest: bytes,
        media_type: ManifestType,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[BatchOptions],
    ) -> Batch:
        """Submit a batch whose images the server has already: uploads, imported files, or images of other jobs.

        Args:
            manifest: The manifest's bytes, with up to 100,000 rows. Each row has an ``image`` (``upload:ID``,
                ``import:PATH`` or ``job:ID``) and optionally name, study, patient, indication and metadata.
            media_type: ``text/csv`` or ``application/x-ndjson``.
            idempotency_key: See ``create``.
            **options: See BatchOptions.

        Returns:
            The batch.

        Raises:
            InvalidRequest: A row or an option is invalid; ``errors`` names each. No batch is made then.
        """
        headers = {**idempotency(idempotency_key), "Content-Type": media_type}
        return await self._session.send(
            ApiRequest(
                "POST", "/v1/batches", as_model(Batch), params=as_texts(options), headers=headers, content=manifest
            )
        )

    async def get(self, batch: Batch | str) -> Batch:
        """Fetch a batch's current state and progress.

        Raises:
            NotFound: The batch doesn't exist or belongs to another tenant.
        """
        return await self._session.send(ApiRequest("GET", f"/v1/batches/{id_of(batch)}", as_model(Batch)))

    async def list(self) -> AsyncIterator[Batch]:
        """List batches, newest first. Pages are fetched as they are needed."""
        cursor = None
        while True:
            params = {"limit": "100"} | ({"cursor": cursor} if cursor else {})
            page = await self._session.send(ApiRequest("GET", "/v1/batches", as_model(BatchPage), params=params))
            for batch in page.items:
                yield batch
            cursor = page.next_cursor
            if cursor is None:
                return

    async def items(self, batch: Batch | str, state: ItemState | None = None) -> AsyncIterator[BatchItem]:
        """List a batch's rows in order, with their jobs' ids and states.

        Args:
            batch: The batch or its id.
            state: Only rows whose job is in this state.

        Raises:
            NotFound: The batch doesn't exist or belongs to another tenant.
        """
        row: int | None = 0
        while row is not None:
            params = {"row": str(row), "limit": "1000"} | ({"state": state} if state else {})
            page = await self._session.send(
                ApiRequest("GET", f"/v1/batches/{id_of(batch)}/items", as_model(BatchItems), params=params)
            )
            for item in page.items:
                yield item
            row = page.next_row

    def results(
        self, batch: Batch | str, follow: bool = False, *, after: str | None = None
    ) -> AsyncIterator[BatchResult]:
        """Yield a result for each row that has ended, each row once, in the order in which they end.

        The stream resumes where the connection breaks.

        Args:
            batch: The batch or its id.
            follow: Yield later results too, until the batch has ended. A paused batch doesn't end.
            after: ``cursor`` of the last result that an earlier program received, to resume behind it. Rows that
                ended within some seconds before it may come again.

        Raises:
            NotFound: The batch doesn't exist or belongs to another tenant.
        """
        params = {"follow": "true"} if follow else {}
        request = ApiRequest("GET", f"/v1/batches/{id_of(batch)}/results.ndjson", as_nothing, params=params)
        subscription = ResultSubscription(request, self._session.retry_policy, follow=follow, after=after)
        return self._session.stream(subscription)

    async def progress(self, batch: Batch | str, timeout: float | None = None) -> AsyncIterator[Batch]:
        """Yield the batch now, and again whenever items have ended, until all have.

        Args:
            batch: The batch or its id.
            timeout: Seconds to wait; None for no limit.

        Raises:
            StillRunning: The batch hasn't ended within the timeout.
            NotFound: The batch doesn't exist or belongs to another tenant.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        found = await self.get(batch)
        yield found
        while not found.ended:
            before = found
            while not found.ended and found.counts == before.counts:
                if time.monotonic() >= deadline:
                    raise StillRunning(
                        f"{found.done} of {found.total} items have ended. The batch continues on the server."
                    )
                await asyncio.sleep(POLL_INTERVAL)
                found = await self.get(batch)
            yield found

    async def wait(self, batch: Batch | str, timeout: float | None = None) -> Batch:
        """Wait until every item of a batch has ended, in whatever state.

        Args:
            batch: The batch or its id.
            timeout: Seconds to wait; None for no limit.

        Returns:
            The ended batch.

        Raises:
            StillRunning: The batch hasn't ended within the timeout.
            NotFound: The batch doesn't exist or belongs to another tenant.
        """
        async for found in self.progress(batch, timeout):
            last = found
        return last

    async def pause(self, batch: Batch | str) -> Batch:
        """Submit no more items of a batch. Items that are queued or running continue.

        Raises:
            Conflict: The batch has already ended.
        """
        return await self._session.send(ApiRequest("POST", f"/v1/batches/{id_of(batch)}/pause", as_model(Batch)))

    async def resume(self, batch: Batch | str) -> Batch:
        """Resume a paused batch.

        Raises:
            Conflict: The batch has already ended.
        """
        return await self._session.send(ApiRequest("POST", f"/v1/batches/{id_of(batch)}/resume", as_model(Batch)))

    async def cancel(self, batch: Batch | str) -> Batch:
        """Cancel every item that hasn't ended. Existing reports stay. Cancelling twice changes nothing.

        Raises:
            Conflict: Every item has already ended.
        """
        try:
            return await self._session.send(
                ApiRequest("POST", f"/v1/batches/{id_of(batch)}/cancel", as_model(Batch))
            )
        except Conflict:
            found = await self.get(batch)
            if found.state != "cancelled":
                raise
            return found

    async def retry(
        self, batch: Batch | str, *, include_permanent: bool = False, idempotency_key: str | None = None
    ) -> Batch:
        """Submit the items that have failed so far as a new batch.

        Args:
            batch: The batch or its id.
            include_permanent: Also items whose image would fail again, such as a damaged file.
            idempotency_key: See ``create``.

        Returns:
            The new batch.

        Raises:
            Conflict: No item has failed, or only permanently.
        """
        headers = idempotency(idempotency_key)
        params = {"include_permanent": "true"} if include_permanent else {}
        path = f"/v1/batches/{id_of(batch)}/retry"
        return await self._session.send(ApiRequest("POST", path, as_model(Batch), params=params, headers=headers))

    async def erase(self, batch: Batch | str) -> None:
        """Erase a batch with all its images and reports permanently.

        The batch can't be found from now on; its jobs are erased within a short time.

        Raises:
            NotFound: The batch doesn't exist or belongs to another tenant.
        """
        await self._session.send(
            ApiRequest("DELETE", f"/v1/batches/{id_of(batch)}", as_nothing, done_if_repeated=(404,))
        )
