"""The system under test: two gateways, two couriers, two workers, Redis and a store."""

import os
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import httpx
import redis

from explainmyxray.processes import REDIS
from explainmyxray.supervisor import find_redis, free_port
from tests.chaos.fault_folder import FaultFolder
from tests.chaos.launcher_process import Order
from tests.chaos.managed_process import Launcher, ManagedProcess, Restarter
from tests.chaos.model_server import MODEL, ModelServer
from tests.chaos.product_process import DISK, FAULTS
from tests.chaos.receiver import WebhookReceiver
from tests.chaos.stores import STORES, StoreUnderTest

ROOT = Path(__file__).resolve().parents[2]

Role = Literal["gateway", "courier", "worker", "redis"]
ROLES: tuple[Role, ...] = ("gateway", "courier", "worker", "redis")
MODULES = {"gateway": "emx_gateway", "courier": "emx_gateway.courier", "worker": "emx_worker"}

ABANDON_AFTER = 6.0
"""Seconds after which a submission that never committed is removed."""

_OF_EACH = 2
_READY_SECONDS = 120.0


@dataclass(frozen=True)
class Pace:
    """How a run is timed, in seconds.

    Attributes:
        lease: of a job.
        beyond_lease: for so long processes and stores are paused.
        spell: for so long a store has a fault that no lease waits for.
        down: for so long a killed process stays away.
        patience: for so long a client tries again.
        fault_points: for so long operations are repeated until a process has died at every point.
        settle: for so long a run waits in the end until nothing is owed or left.
        webhook_faults: how many tries of one event may fail.
        cold: whether every process is started as an operator would, and workers run the demo model. Otherwise
            processes are forked from one that has imported everything, and workers ask a small server.
    """

    lease: float
    beyond_lease: float
    spell: float
    down: float
    patience: float
    fault_points: float
    settle: float
    webhook_faults: int
    cold: bool


SHORT = Pace(
    lease=1.2,
    beyond_lease=1.6,
    spell=1.0,
    down=0.3,
    patience=60.0,
    fault_points=60.0,
    settle=45.0,
    webhook_faults=1,
    cold=False,
)
LONG = Pace(
    lease=3.0,
    beyond_lease=5.0,
    spell=5.0,
    down=2.0,
    patience=180.0,
    fault_points=300.0,
    settle=120.0,
    webhook_faults=2,
    cold=True,
)


class NotReady(Exception):
    """The system didn't start; the text says where the logs are."""


class System:
    """All processes, which run while it is entered.

    Attributes:
        processes: by role, Redis included.
        store: see ``stores``.
        faults: the fault folder of all processes.
        receiver: takes webhooks.
        models: the server that workers ask, unless they run the demo model.
    """

    def __init__(self, folder: Path, store: str, pace: Pace, seed: int) -> None:
        self.pace, self._folder = pace, folder
        self.faults = FaultFolder(folder / "faults").make()
        self._launcher = Launcher(folder, ROOT, preload=not pace.cold)
        self.store: StoreUnderTest = STORES[store](folder, self.faults, self._launcher)
        self.processes: dict[Role, list[ManagedProcess]] = {}
        self._secret = "whsec_" + b64encode(os.urandom(24)).decode()
        self.receiver = WebhookReceiver(self._secret, seed, pace.webhook_faults)
        self.models = ModelServer()
        self._ports = [free_port() for _ in range(_OF_EACH)]
        self._redis_port = free_port()
        self._stack = ExitStack()
        self._all: list[ManagedProcess] = []

    @property
    def gateways(self) -> list[str]:
        """The gateways' addresses."""
        return [f"http://127.0.0.1:{port}" for port in self._ports]

    @property
    def redis_url(self) -> str:
        """Redis's address."""
        return f"redis://127.0.0.1:{self._redis_port}/0"

    @property
    def redis(self) -> redis.Redis:
        """Return a client of Redis."""
        return redis.Redis(port=self._redis_port, socket_timeout=5)

    @property
    def starts(self) -> int:
        """How often a process was started."""
        return sum(process.starts for process in self._all)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            (self._folder / "logs").mkdir()
            stack.enter_context(self._launcher)
            stack.enter_context(self.receiver)
            stack.enter_context(self.models)
            stack.enter_context(self.store)
            stack.callback(self._stop)
            self._start()
            stack.enter_context(Restarter(self._all))
            self._wait_until_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def of(self, *roles: Role) -> list[ManagedProcess]:
        """Return the processes of some roles."""
        return [process for role in roles for process in self.processes[role]]

    def with_another_clock(self, role: Role, clock: Path, port: int) -> ManagedProcess:
        """Start one more process, whose clock is off as a file says (libfaketime's FAKETIME_TIMESTAMP_FILE).

        File times stay those of the file system, as where it is another machine's. Raises FileNotFoundError where
        libfaketime isn't installed.
        """
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
        if library is None:
            raise FileNotFoundError("libfaketime isn't installed: apt install libfaketime")
        environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
            "EMX_PORT": str(port),
        }
        name = f"{role}-of-another-clock"
        return self._add(name, self._order(role, name, environment, cold=True))

    def forget(self, processes: Iterable[ManagedProcess]) -> None:
        """End processes that were added."""
        for process in processes:
            process.stop()
            self._all.remove(process)

    def _start(self) -> None:
        command = [find_redis(), *REDIS[1:], "--port", str(self._redis_port), "--bind", "127.0.0.1"]
        redis_order = Order(command=[*command, "--dir", str(self._folder)], log=self._log("redis"))
        self.processes["redis"] = [self._add("redis", redis_order)]
        for role in ("gateway", "courier", "worker"):
            self.processes[role] = []
            for number, port in enumerate(self._ports, start=1):
                name = f"{role}-{number}"
                order = self._order(role, name, {"EMX_PORT": str(port)}, cold=self.pace.cold)
                self.processes[role].append(self._add(name, order))

    def _add(self, name: str, order: Order) -> ManagedProcess:
        process = ManagedProcess(name, self._launcher, order)
        self._all.append(process)
        return process

    def _order(self, role: Role, name: str, environment: dict[str, str], *, cold: bool) -> Order:
        module, environment = MODULES[role], {**self._environment(), **environment}
        if cold:
            command = [sys.executable, "-m", "tests.chaos.product_process", module]
            return Order(command=command, environment=environment, log=self._log(name))
        return Order(module=module, environment=environment, log=self._log(name))

    def _log(self, name: str) -> str:
        return str(self._folder / "logs" / f"{name}.log")

    def _environment(self) -> dict[str, str]:
        pace = self.pace
        asked = (
            {} if pace.cold else {"EMX_SERVER": self.models.url, "EMX_MODEL": MODEL, "EMX_SERVER_GRAMMAR": "none"}
        )
        return {
            **asked,
            **self.store.environment,
            FAULTS: str(self.faults.path),
            DISK: str(self.store.disk or ""),
            "EMX_REDIS": self.redis_url,
            "EMX_WEBHOOK_SECRET": self._secret,
            "EMX_WEBHOOK_ALLOW_PRIVATE": "true",
            "EMX_WEBHOOK_TIMEOUT": "3",
            "EMX_LEASE": f"{pace.lease:g}",
            "EMX_RECONCILE_EVERY": "0.5",
            "EMX_ABANDON_AFTER": f"{ABANDON_AFTER:g}",
            "EMX_OVERTAKEN_AFTER": "5",
            "EMX_SLOTS": "8",
            "EMX_SUBMIT_LIMIT": "10000/second",
            "EMX_READ_LIMIT": "10000/second",
            "OMP_NUM_THREADS": "1",
        }

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + _READY_SECONDS
        for gateway in self.gateways:
            while not _ready(gateway):
                if time.monotonic() > until:
                    raise NotReady(
                        f"not ready after {_READY_SECONDS:.0f} s; the logs are in {self._folder / 'logs'}"
                    )
                time.sleep(0.1)

    def _stop(self) -> None:
        threads = [threading.Thread(target=process.stop) for process in self._all]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _ready(gateway: str) -> bool:
    try:
        return httpx.get(f"{gateway}/readyz", timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
