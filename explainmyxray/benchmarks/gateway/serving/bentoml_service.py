"""BentoML's task endpoint: ``bentoml serve bentoml_service:NoOp``, with EMX_BENCH_PROCESSES in the environment."""

import os
from pathlib import Path

import bentoml


@bentoml.service(workers=int(os.environ["EMX_BENCH_PROCESSES"]))
class NoOp:
    @bentoml.task
    def read(self, file: Path) -> int:
        return file.stat().st_size
