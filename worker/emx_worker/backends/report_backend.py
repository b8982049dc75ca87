"""What a job runner asks of whatever runs the model."""

from typing import Protocol

from emx_shared.contracts.report import Report
from emx_worker.image_task import ImageFault, ImageTask


class ReportBackend(Protocol):
    """Runs the model: an engine in this process (``EngineThread``), or a server (``OpenAIServerBackend``).

    Every method may be called from any thread.
    """

    @property
    def progress(self) -> int:
        """Count the work done so far. It stands still while the backend is idle, and while it hangs."""

    def partial_texts(self) -> dict[str, str]:
        """Return the text so far of each image that is being read, by the image's id."""

    def read(self, task: ImageTask) -> Report | ImageFault:
        """Read an image, and wait for its report."""

    def close(self) -> None:
        """Take no more images."""
