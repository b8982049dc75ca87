"""Serves BentoML's task endpoint: ``bentoml serve bentoml_service:BentoNoOp``."""

from pathlib import Path

import bentoml


@bentoml.service
class BentoNoOp:
    """A service whose task does no work."""

    @bentoml.task
    def read(self, file: Path) -> int:
        """Return the size of the upload in bytes."""
        return file.stat().st_size
