"""The peers: LitServe, BentoML and Ray Serve, each used as its documentation shows."""

from pathlib import Path

import redis

from emx_benchmarks.gateway.load import JobEndpoint
from emx_benchmarks.gateway.system import BenchPlace, MeasuredSystem

_SERVING = Path(__file__).parent / "serving"
_QUIET = {"DO_NOT_TRACK": "1", "BENTOML_DO_NOT_TRACK": "true", "RAY_USAGE_STATS_ENABLED": "0"}


class LitServe(MeasuredSystem):
    """LitServe. It has no jobs: a submission is answered when the work, here a no-op, is done."""

    def __init__(self) -> None:
        keeps = "There are no jobs: the client holds the connection until the answer, and nothing is written."
        super().__init__("litserve", False, keeps, ("litserve", "python-multipart"))

    @property
    def endpoint(self) -> JobEndpoint:
        """Return how jobs are submitted and polled."""
        return JobEndpoint(port=self.port, submit="/predict")

    def start(self, place: BenchPlace) -> None:
        """Start the server."""
        program = str(_SERVING / "litserve_server.py")
        command = [str(place.python), program, str(self.port)]
        self._run("server", command, place.folder, **_QUIET)


class BentoML(MeasuredSystem):
    """BentoML with ``@bentoml.task``: submit, then poll the status."""

    def __init__(self) -> None:
        keeps = (
            "A row in SQLite survives, but the work runs in the process that took the request: nothing "
            "resumes it, and its status stays in_progress."
        )
        super().__init__("bentoml", False, keeps, ("bentoml",))

    @property
    def endpoint(self) -> JobEndpoint:
        """Return how jobs are submitted and polled."""
        poll = "/read/status?task_id={id}"
        ended = ("completed", "failed")
        return JobEndpoint(
            port=self.port, submit="/read/submit", poll=poll, id="task_id", state="status", ended=ended
        )

    def start(self, place: BenchPlace) -> None:
        """Start the server."""
        program = str(place.python.parent / "bentoml")
        command = [
            program,
            "serve",
            "bentoml_service:BentoNoOp",
            "--working-dir",
            str(_SERVING),
            "--host",
            "127.0.0.1",
        ]
        own = {"BENTOML_HOME": str(place.folder / "bentoml")}
        self._run("server", [*command, "--port", str(self.port)], place.folder, **own, **_QUIET)


class RayServe(MeasuredSystem):
    """Ray Serve with asynchronous inference: an HTTP deployment sends Celery messages to a ``task_consumer``."""

    _broker: redis.Redis

    def __init__(self) -> None:
        keeps = (
            "The image travels in a Celery message: a broker that still runs delivers it again, but a Redis that "
            "was killed too has lost it, unless it is set up to write each message to disk."
        )
        super().__init__("ray", False, keeps, ("ray[serve-async-inference]", "celery[redis]"))

    @property
    def endpoint(self) -> JobEndpoint:
        """Return how jobs are submitted and polled."""
        ended = ("SUCCESS", "FAILURE")
        return JobEndpoint(port=self.port, submit="/jobs", poll="/jobs/{id}", ended=ended)

    def start(self, place: BenchPlace) -> None:
        """Start the server."""
        self._broker = self._start_redis(place)
        url = f"redis://127.0.0.1:{self._broker.connection_pool.connection_kwargs['port']}/0"
        program = str(_SERVING / "ray_application.py")
        command = [str(place.python), program, str(self.port), url, str(place.sockets)]
        self._run("server", command, place.folder, **_QUIET)

    def clear(self) -> None:
        """Empty the queue in Redis."""
        self._broker.delete("reads")


def peers() -> list[MeasuredSystem]:
    """Return all peers."""
    return [LitServe(), BentoML(), RayServe()]
