"""The peers: LitServe, BentoML and Ray Serve, each as its documentation shows it."""

from pathlib import Path

import redis

from emx_benchmarks.gateway.load import Door
from emx_benchmarks.gateway.system import Place, System

_SERVING = Path(__file__).parent / "serving"
_QUIET = {"DO_NOT_TRACK": "1", "BENTOML_DO_NOT_TRACK": "true", "RAY_USAGE_STATS_ENABLED": "0"}


class LitServe(System):
    """It has no jobs: a submission is answered when the work, here none, was done."""

    def __init__(self) -> None:
        keeps = "There are no jobs: who asks holds the connection until the answer, and nothing is written."
        super().__init__("litserve", False, keeps, ("litserve",))

    @property
    def door(self) -> Door:
        return Door(port=self.port, submit="/predict")

    def start(self, place: Place) -> None:
        program = str(_SERVING / "litserve_server.py")
        command = [str(place.python), program, str(self.port)]
        self._run("server", command, place.folder, **_QUIET)


class BentoML(System):
    """``@bentoml.task``: submit, then ask for the status."""

    def __init__(self) -> None:
        keeps = (
            "A row in SQLite survives, but the work runs in the process that took the request: nothing takes it "
            "up again, and its status stays in_progress."
        )
        super().__init__("bentoml", False, keeps, ("bentoml",))

    @property
    def door(self) -> Door:
        poll = "/read/status?task_id={id}"
        ended = ("completed", "failed")
        return Door(port=self.port, submit="/read/submit", poll=poll, id="task_id", state="status", ended=ended)

    def start(self, place: Place) -> None:
        program = str(place.python.parent / "bentoml")
        command = [program, "serve", "bentoml_service:NoOp", "--working-dir", str(_SERVING), "--host", "127.0.0.1"]
        own = {"BENTOML_HOME": str(place.folder / "bentoml")}
        self._run("server", [*command, "--port", str(self.port)], place.folder, **own, **_QUIET)


class RayServe(System):
    """Its asynchronous inference: an HTTP deployment that sends Celery messages to a ``task_consumer``."""

    _broker: redis.Redis

    def __init__(self) -> None:
        keeps = (
            "The image travels in a Celery message: a broker that still runs gives it out again, and a Redis that "
            "was killed too has lost it, unless it was set up to write each message to its disk."
        )
        super().__init__("ray", False, keeps, ("ray[serve-async-inference]", "celery[redis]"))

    @property
    def door(self) -> Door:
        ended = ("SUCCESS", "FAILURE")
        return Door(port=self.port, submit="/jobs", poll="/jobs/{id}", ended=ended)

    def start(self, place: Place) -> None:
        self._broker = self._start_redis(place)
        url = f"redis://127.0.0.1:{self._broker.connection_pool.connection_kwargs['port']}/0"
        program = str(_SERVING / "ray_application.py")
        command = [str(place.python), program, str(self.port), url, str(place.sockets)]
        self._run("server", command, place.folder, **_QUIET)

    def clear(self) -> None:
        self._broker.delete("reads")


def peers() -> list[System]:
    return [LitServe(), BentoML(), RayServe()]
