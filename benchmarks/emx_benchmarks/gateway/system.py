"""What is measured: a system that takes uploads, whoever made it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import redis

from emx_benchmarks.gateway.load import Door
from emx_benchmarks.gateway.served_process import NotServing, Server
from explainmyxray.processes import REDIS
from explainmyxray.supervisor import find_redis, free_port


@dataclass(frozen=True)
class Place:
    """Where systems run.

    Attributes:
        folder: on a disk, for what they keep.
        sockets: a folder whose path is short, for sockets.
        python: the interpreter that has the peers.
    """

    folder: Path
    sockets: Path
    python: Path


@dataclass
class System(ABC):
    """Started by ``start``; must be stopped, whether or not it started.

    Attributes:
        durable: whether what was accepted is done in the end after all of its processes were killed (SIGKILL).
        keeps: why, in a sentence.
        requirements: for pip; the first is the one whose version counts.
    """

    name: str
    durable: bool
    keeps: str
    requirements: tuple[str, ...] = ()
    version: str = ""
    port: int = field(default_factory=free_port)
    servers: list[Server] = field(default_factory=list)

    @property
    @abstractmethod
    def door(self) -> Door: ...

    @abstractmethod
    def start(self, place: Place) -> None:
        """Begin to start. Raises NotServing, OSError."""

    def check(self) -> None:
        """Raises NotServing if a process of it has ended."""
        for server in self.servers:
            server.check()

    def read_jobs(self, wanted: bool) -> None:  # noqa: B027
        """Whether jobs are to be done at all from now on; of no effect where that can't be chosen."""

    def clear(self) -> None:  # noqa: B027
        """Forget what was submitted, so that it isn't worked on in another's turn."""

    def leave(self) -> None:
        """Begin to stop."""
        for server in self.servers:
            server.leave()

    def stop(self) -> None:
        for server in reversed(self.servers):
            server.stop()

    def _run(self, name: str, command: list[str], folder: Path, **environment: str) -> Server:
        server = Server(command, environment, folder / f"{self.name}-{name}.log", folder)
        self.servers.append(server)
        return server

    def _start_redis(self, place: Place) -> redis.Redis:
        """Redis as ``emx up`` starts it."""
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
        raise NotServing("Redis doesn't answer")
