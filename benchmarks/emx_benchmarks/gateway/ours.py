"""Our gateway, with its Redis, its store in a directory, and a stand-in for the worker."""

import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import redis

from emx_benchmarks.gateway.load import JobEndpoint
from emx_benchmarks.gateway.served_process import ServedProcess
from emx_benchmarks.gateway.system import BenchPlace, MeasuredSystem
from emx_shared.messaging import READ_QUEUES
from explainmyxray.processes import GATEWAY

_STAND_IN = ("-P", "-m", "emx_benchmarks.gateway.stand_in")


class OurGateway(MeasuredSystem):
    """Our gateway with default settings, except the limits of how much one tenant may submit."""

    _redis: redis.Redis
    _worker: ServedProcess
    _store: Path

    def __init__(self) -> None:
        keeps = "The image and the request were written and synced to disk before the answer."
        super().__init__("explainmyxray", True, keeps, version=version("explainmyxray"))

    @property
    def endpoint(self) -> JobEndpoint:
        """Return how jobs are submitted and polled."""
        ended = ("succeeded", "failed", "cancelled", "expired")
        return JobEndpoint(port=self.port, submit="/v1/jobs", poll="/v1/jobs/{id}", ended=ended)

    def start(self, place: BenchPlace) -> None:
        """Start Redis, and then gateway and worker."""
        self._redis, self._store = self._start_redis(place), place.folder / "store"
        own = {
            "EMX_STORE": f"file:{self._store}",
            "EMX_REDIS": f"redis://127.0.0.1:{self._redis.connection_pool.connection_kwargs['port']}/0",
            "EMX_PORT": str(self.port),
            "EMX_SUBMIT_LIMIT": "1000000/second",
            "EMX_READ_LIMIT": "1000000/second",
            "EMX_MAX_QUEUED_PER_TENANT": "1000000",
        }
        self._run("gateway", [sys.executable, *GATEWAY[1:]], place.folder, **own)
        self._worker = self._run("worker", [sys.executable, *_STAND_IN], place.folder, **own)

    def read_jobs(self, wanted: bool) -> None:
        """Resume or pause the worker."""
        if wanted:
            self._worker.resume()
        else:
            self._worker.pause()

    def clear(self) -> None:
        """Delete all jobs from queues and store."""
        hints = [key for pattern in ("line:*", "round:*", "unacked*") for key in self._redis.keys(pattern)]
        self._redis.delete(*READ_QUEUES, *hints)
        for folder in ("jobs", "open"):
            shutil.rmtree(self._store / folder, ignore_errors=True)
