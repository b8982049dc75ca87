"""BentoML's task endpoint: ``bentoml serve bentoml_service:NoOp``."""

from pathlib import Path

import bentoml


@bentoml.service
class NoOp:
    @bentoml.task
    def read(self, file: Path) -> int:
        return file.stat().st_size
