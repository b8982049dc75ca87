# Generated from ../_async/uploads.py by: python scripts/generate_sync_client.py
# Don't edit this file: change that one, and run the command.
"""``client.uploads``: put images straight into the server's store."""

from explainmyxray.client._sync.session import HttpSession
from explainmyxray.client.requests import ApiRequest, as_model, as_nothing, idempotency
from explainmyxray.client.resources import Upload
from explainmyxray.image_input import XRay, file_bytes


class Uploads:
    """The uploads of a server. Every method raises ApiError if the server refuses or is unavailable."""

    def __init__(self, session: HttpSession) -> None:
        self._session = session

    def create(self, image: XRay) -> Upload:
        """Upload an image, to be submitted within the day.

        Returns:
            The upload, for ``client.jobs.submit`` or a manifest's row ``upload:ID``.

        Raises:
            BadImage: The image is invalid; RejectedImage, a subclass, if the server says so.
        """
        content = file_bytes(image)
        return self.send(self.prepare(), content)

    def prepare(self, idempotency_key: str | None = None) -> Upload:
        """Get an address for an image, which is valid for an hour.

        Args:
            idempotency_key: The same key gives the same upload with a fresh address, and its ``received`` tells
                whether the image has arrived.

        Returns:
            The upload, which a manifest may name before its image has arrived.
        """
        headers = idempotency(idempotency_key) if idempotency_key else {}
        return self._session.send(ApiRequest("POST", "/v1/uploads", as_model(Upload), headers=headers))

    def send(self, upload: Upload, image: XRay) -> Upload:
        """Send an image to its address, which never gets the API key. Sending it twice changes nothing.

        Returns:
            The upload.

        Raises:
            BadImage: The image is invalid; RejectedImage, a subclass, if the server says so.
            Forbidden: The address has expired.
        """
        content = file_bytes(image)
        self._session.send(ApiRequest(upload.method, upload.url, as_nothing, content=content, authenticated=False))
        return upload
