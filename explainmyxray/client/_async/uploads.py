"""``client.uploads``: put images straight into the server's store."""

from explainmyxray.client._async.session import AsyncHttpSession
from explainmyxray.client.requests import ApiRequest, as_model, as_nothing, idempotency
from explainmyxray.client.resources import Upload
from explainmyxray.image_input import XRay, async_file_bytes


class AsyncUploads:
    """The uploads of a server. Every method raises ApiError if the server refuses or is unavailable."""

    def __init__(self, session: AsyncHttpSession) -> None:
        self._session = session

    async def create(self, image: XRay) -> Upload:
        """Upload an image, to be submitted within the day.

        Returns:
            The upload, for ``client.jobs.submit`` or a manifest's row ``upload:ID``.

        Raises:
            BadImage: The image is invalid; RejectedImage, a subclass, if the server says so.
        """
        content = await async_file_bytes(image)
        return await self.send(await self.prepare(), content)

    async def prepare(self, idempotency_key: str | None = None) -> Upload:
        """Get an address for an image, which is valid for an hour.

        Args:
            idempotency_key: The same key gives the same upload with a fresh address, and its ``received`` tells
                whether the image has arrived.

        Returns:
            The upload, which a manifest may name before its image has arrived.
        """
        headers = idempotency(idempotency_key) if idempotency_key else {}
        return await self._session.send(ApiRequest("POST", "/v1/uploads", as_model(Upload), headers=headers))

    async def send(self, upload: Upload, image: XRay) -> Upload:
        """Send an image to its address, which never gets the API key. Sending it twice changes nothing.

        Returns:
            The upload.

        Raises:
            BadImage: The image is invalid; RejectedImage, a subclass, if the server says so.
            Forbidden: The address has expired.
        """
        content = await async_file_bytes(image)
        await self._session.send(
            ApiRequest(upload.method, upload.url, as_nothing, content=content, authenticated=False)
        )
        return upload
