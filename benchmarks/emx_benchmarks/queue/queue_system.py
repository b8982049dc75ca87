"""Our own processes on one Redis and one store in a folder, with a queue that was filled before."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import redis

from emx_benchmarks.gateway.served_process import NotServing, ServedProcess
from emx_benchmarks.queue.preloading import Preloader
from emx_shared.demo_files import DEMO_IMAGE
from explainmyxray.processes import GATEWAY, REDIS
from explainmyxray.supervisor import find_redis, free_port

_STARTUP_SECONDS = 45.0
_UNLIMITED = "1000000"


class QueueSystem:
    """A Redis and a gateway, and what else is started with ``run``.

    Attributes:
        client: of the gateway.
        redis: of the Redis.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        """Start Redis and gateway in a new folder. Stop them with ``stop``, whether or not they started.

        ``settings`` are environment variables.
        """
        folder.mkdir()
        self._folder, self._settings = folder, settings
        self._servers: list[ServedProcess] = []
        redis_port, port = free_port(), free_port()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        self.redis = redis.Redis(port=redis_port)
        self._url = f"redis://127.0.0.1:{redis_port}/0"
        self.run("redis", find_redis(), *REDIS[1:], "--port", str(redis_port), "--bind", "127.0.0.1")
        self.run("gateway", sys.executable, *GATEWAY[1:], EMX_PORT=str(port))

    def run(self, name: str, *command: str, **settings: str) -> None:
        """Start a process of the system."""
        own = {
            "EMX_STORE": f"file:{self._store}",
            "EMX_REDIS": self._url,
            "EMX_SUBMIT_LIMIT": f"{_UNLIMITED}/second",
            "EMX_READ_LIMIT": f"{_UNLIMITED}/second",
            "EMX_MAX_QUEUED": _UNLIMITED,
            "EMX_MAX_QUEUED_PER_TENANT": _UNLIMITED,
            **self._settings,
            **settings,
        }
        self._servers.append(ServedProcess(list(command), own, self._folder / f"{name}.log", self._folder))

    @property
    def _store(self) -> Path:
        return self._folder / "store"

    def wait_until_ready(self, *checks: str) -> None:
        """Wait until the gateway answers and says that these are available. Raises NotServing."""
        give_up = time.monotonic() + _STARTUP_SECONDS
        while time.monotonic() < give_up:
            for server in self._servers:
                server.check()
            if self._is_ready(checks):
                return
            time.sleep(0.1)
        raise NotServing(f"{', '.join(checks)} not ready after {_STARTUP_SECONDS:.0f} s")

    def _is_ready(self, checks: tuple[str, ...]) -> bool:
        try:
            found: Mapping[str, bool] = self.client.get("/readyz").json()["checks"]
        except httpx.TransportError:
            return False
        return all(found[check] for check in checks)

    def preloader(self) -> Preloader:
        """Return what fills the queue; it must be made before anybody reads it."""
        return Preloader(self._store, self._url, DEMO_IMAGE.read_bytes())

    def stop(self) -> None:
        """Stop all processes."""
        self.client.close()
        for server in self._servers:
            server.kill()
