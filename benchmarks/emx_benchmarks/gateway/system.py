"""The interface of a measured system: it takes uploads, whoever made it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import redis

from emx_benchmarks.gateway.load import JobEndpoint
from emx_benchmarks.gateway.served_process import NotServing, ServedProcess
from explainmyxray.processes import REDIS
from explainmyxray.supervisor import find_redis, free_port


@dataclass(frozen=True)
class BenchPlace:
    """Where the measured systems run.

    Attributes:
        folder: on a disk, for their data and logs.
        sockets: a folder with a short path, for sockets.
        python: the interpreter that has the peers installed.
    """

    folder: Path
    sockets: Path
    python: Path


@dataclass
class MeasuredSystem(ABC):
    """A system under measurement. ``start`` starts it; it must be stopped, whether or not it started.

    Attributes:
        name: in tables and figures.
        durable: whether accepted jobs are finished even if all of its processes are killed (SIGKILL).
        keeps: why, in a sentence.
        requirements: for pip; the version of the first is reported.
        version: of the system.
        port: on which it answers HTTP.
        servers: its processes, in the order in which they were started.
    """

    name: str
    durable: bool
    keeps: str
    requirements: tuple[str, ...] = ()
    version: str = ""
    port: int = field(default_factory=free_port)
    servers: list[ServedProcess] = field(default_factory=list)

    @property
    @abstractmethod
    def endpoint(self) -> JobEndpoint:
        """Return how jobs are submitted and polled."""

    @abstractmethod
    def start(self, place: BenchPlace) -> None:
        """Start the processes, without waiting until they answer. Raises NotServing or OSError."""

    def check(self) -> None:
        """Check that all processes are running. Raises NotServing if one has ended."""
        for server in self.servers:
            server.check()

    def read_jobs(self, wanted: bool) -> None:  # noqa: B027
        """Switch the work on jobs on or off. Without effect on systems where this isn't possible."""

    def clear(self) -> None:  # noqa: B027
        """Forget the submitted jobs, so that no work is done on them in another system's turn."""

    def terminate(self) -> None:
        """Ask all processes to end."""
        for server in self.servers:
            server.terminate()

    def stop(self) -> None:
        """Wait for the end of all processes, and kill those that don't end."""
        for server in reversed(self.servers):
            server.stop()

    def _run(self, name: str, command: list[str], folder: Path, **environment: str) -> ServedProcess:
        server = ServedProcess(command, environment, folder / f"{self.name}-{name}.log", folder)
        self.servers.append(server)
        return server

    def _start_redis(self, place: BenchPlace) -> redis.Redis:
        """Start Redis as ``emx up`` does. Raises NotServing."""
        port = free_port()
        command = [find_redis(), *REDIS[1:], "--port", str(port), "--bind", "127.0.0.1"]
        server = self._run("redis", command, place.folder)
        client = redis.Redis(port=port)
        for _ in range(100):
            server.check()
            try:
                client.ping()
                return client
            except redis.ConnectionError:
                server.wait(0.05)
        raise NotServing("Redis does not answer")
