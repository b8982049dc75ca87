# Generated from ../_async/uploads.py by: python scripts/generate_sync_client.py
# Don't edit this file: change that one, and run the command.
"""``client.uploads``: put images straight into the server's store."""

from explainmyxray.client._sync.session import HttpSession
from explainmyxray.client.requests import ApiRequest, as_model, as_nothing
from explainmyxray.client.resources import Upload
from explainmyxray.image_input import XRay, file_bytes


class Uploads:
    """The uploads of a server. Every method raises ApiError if the server refuses or is unavailable."""

    def __init__(self, session: HttpSession) -> None:
        self._session = session

    def create(self, image: XRay) -> Upload:
        """Upload an image, to be submitted within the hour.

        The image's bytes go to the upload's own address, which never gets the API key.

        Returns:
            The upload, for ``client.jobs.submit`` or a manifest's row ``upload:ID``.

        Raises:
            BadImage: The image is invalid; RejectedImage, a subclass, if the server says so.
        """
        content = file_bytes(image)
        upload = self._session.send(ApiRequest("POST", "/v1/uploads", as_model(Upload)))
        self._session.send(ApiRequest(upload.method, upload.url, as_nothing, content=content, authenticated=False))
        return upload
