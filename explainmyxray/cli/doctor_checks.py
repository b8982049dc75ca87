"""The checks of ``emx doctor``: each says what was found, and what to do where something is missing."""

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from emx_shared.demo_files import DEMO_MODEL
from emx_shared.settings import Settings

Status = Literal["ok", "warn", "fail"]
_GB = 10**9
_LITTLE_DISK, _SCARCE_DISK = 500 * 2**20, 5 * _GB
_DEMO_MEMORY = 2 * _GB
"""Bytes for a gateway, a courier and a worker with the demo model."""


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: What was checked.
        status: ok, warn (something may not work) or fail.
        found: The fact.
        todo: What to do about it; empty if nothing has to be done.
    """

    name: str
    status: Status
    found: str
    todo: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the check for JSON."""
        return asdict(self)


def examine(chosen: Settings) -> Iterator[Check]:
    """Run all checks, in the order in which things are needed."""
    yield python()
    yield packages()
    yield memory()
    yield disk(chosen)
    yield redis(chosen)
    yield store(chosen)
    yield model(chosen)
    yield port(chosen)
    if chosen.url:
        yield server(chosen.url)


def python() -> Check:
    """Report Python's version, which always suffices: on an older Python, pip refuses to install the package."""
    return Check("Python", "ok", f"{platform.python_version()} at {sys.executable}")


def packages() -> Check:
    """Check which rooms' packages are installed."""
    rooms = {"gateway": ("fastapi", "redis", "celery"), "worker": ("torch", "transformers", "llguidance")}
    missing = [room for room, modules in rooms.items() if not all(find_spec(module) for module in modules)]
    if missing:
        todo = f"The client works without them. To add them: pip install 'explainmyxray[{','.join(missing)}]'"
        return Check("Packages", "warn", f"the packages of {' and '.join(missing)} are not installed", todo)
    return Check("Packages", "ok", "client, gateway and worker")


def memory() -> Check:
    """Check that the demo model fits into free memory."""
    free = free_memory()
    if free is None:
        todo = f"Make sure that {_DEMO_MEMORY / _GB:.0f} GB are free."
        return Check("Memory", "warn", "free memory is unknown on this system", todo)
    found = f"{free / _GB:.1f} GB free"
    if free < _DEMO_MEMORY:
        todo = f"`emx up` needs {_DEMO_MEMORY / _GB:.0f} GB. Close other programs."
        return Check("Memory", "warn", found, todo)
    return Check("Memory", "ok", found)


def free_memory() -> int | None:
    """Return the bytes of memory that programs can still use; None if the system doesn't say."""
    if find_spec("psutil"):
        import psutil

        return int(psutil.virtual_memory().available)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)


def disk(chosen: Settings) -> Check:
    """Check the free space where the store is."""
    from emx_shared.store.selection import folder_of

    folder = nearest_existing(folder_of(chosen.store) or Path.cwd())
    free = shutil.disk_usage(folder).free
    found = f"{free / _GB:.1f} GB free at {folder}"
    todo = "Free space, or choose another disk: emx up --data DIR, or EMX_STORE"
    if free < _LITTLE_DISK:
        return Check("Disk", "fail", found, todo)
    return Check("Disk", "warn" if free < _SCARCE_DISK else "ok", found, todo if free < _SCARCE_DISK else "")


def redis(chosen: Settings) -> Check:
    """Check that Redis answers, or can be started."""
    from explainmyxray.supervisor import CannotStart, find_redis

    if "redis" not in chosen.model_fields_set:
        try:
            return Check("Redis", "ok", f"`emx up` will start {find_redis()}")
        except CannotStart as error:
            return Check("Redis", "fail", "no redis-server", f"{error} Or set EMX_REDIS to a running server.")
    if not find_spec("redis"):
        return Check("Redis", "warn", "not checked", "pip install 'explainmyxray[service]'")
    from redis import Redis
    from redis.exceptions import RedisError

    try:
        Redis.from_url(chosen.redis, socket_connect_timeout=3, socket_timeout=3).ping()
    except (RedisError, ValueError) as error:
        found = f"EMX_REDIS can't be reached ({type(error).__name__})"
        return Check("Redis", "fail", found, "Start that server, or correct EMX_REDIS.")
    return Check("Redis", "ok", "EMX_REDIS answers")


def store(chosen: Settings) -> Check:
    """Check that the store can be written to."""
    from emx_shared.store import StoreError, open_store
    from emx_shared.store.selection import folder_of

    folder = folder_of(chosen.store)
    if folder and not folder.exists():
        parent = nearest_existing(folder)
        if os.access(parent, os.W_OK):
            return Check("Store", "ok", f"{folder} will be made when it is needed")
        return Check("Store", "fail", f"{folder} can't be made in {parent}", "Choose another: EMX_STORE=file:DIR")
    try:
        open_store(chosen).check()
    except StoreError as error:
        todo = "Correct EMX_STORE, EMX_S3_ACCESS_KEY or EMX_S3_SECRET_KEY."
        return Check("Store", "fail", f"{chosen.store}: {error}", todo)
    except ImportError as error:
        return Check("Store", "warn", f"not checked ({error})", "pip install 'explainmyxray[service]'")
    except OSError as error:
        todo = "Make it writable, or choose another: EMX_STORE=file:DIR"
        return Check("Store", "fail", f"{chosen.store}: {error.strerror}", todo)
    return Check("Store", "ok", f"{chosen.store} keeps what it is given, and overwrites nothing")


def model(chosen: Settings) -> Check:
    """Check that the model exists, and that this machine can run it."""
    name = chosen.model
    if chosen.server:
        return Check("Model", "ok", f"{name}, which {chosen.server} runs")
    if Path(name).is_absolute() and not (Path(name) / "config.json").is_file():
        if Path(name) == DEMO_MODEL:
            return Check("Model", "fail", f"the demo model is missing from {name}", _GET_DEMO_MODEL)
        todo = "Correct EMX_MODEL, or unset it to use the demo model."
        return Check("Model", "fail", f"there is no checkpoint in {name}", todo)
    if not find_spec("torch"):
        todo = "pip install 'explainmyxray[worker]', or let a server read: EMX_URL"
        return Check("Model", "warn", f"{name}; without torch its needs are unknown", todo)
    from explainmyxray.cli.model import HubUnavailable
    from explainmyxray.cli.model import examine as examine_model

    try:
        needed = examine_model(name)
    except (HubUnavailable, RuntimeError) as error:
        return Check("Model", "fail", str(error), f"For details: emx model check {name}")
    found = f"{name} needs {needed['memory']['int4'] / _GB:.1f} GB and runs on {needed['runs_on']}"
    if needed["obstacles"]:
        return Check("Model", "fail", found, " ".join(needed["obstacles"]))
    if needed["to_download"]:
        return Check("Model", "warn", found, f"Its weights aren't downloaded yet: emx model pull {name}")
    return Check("Model", "ok", found)


_GET_DEMO_MODEL = (
    "Get the demo model with `git checkout HEAD -- models/demo` in a clone, or with "
    "`pip install --force-reinstall explainmyxray` elsewhere."
)


def port(chosen: Settings) -> Check:
    """Check that the gateway's port is free, or in use by ExplainMyXray itself."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", chosen.port))
        except OSError:
            return _port_in_use(chosen.port)
    return Check("Port", "ok", f"{chosen.port} is free")


def _port_in_use(number: int) -> Check:
    from explainmyxray.client import ApiError, Client

    try:
        with Client(f"http://127.0.0.1:{number}", timeout=3, retries=0) as client:
            client.ready()
    except ApiError:
        return Check("Port", "fail", f"{number} is in use", f"Choose another: emx up --port {number + 1}")
    return Check("Port", "ok", f"ExplainMyXray is running on {number}")


def server(url: str) -> Check:
    """Check that the server at EMX_URL is ready and accepts the API key."""
    from explainmyxray.client import ApiError, Client, Forbidden, InvalidConnection, Unauthenticated

    try:
        with Client(url, timeout=10, retries=0) as client:
            readiness = client.ready()
            next(client.jobs.list(), None)
    except InvalidConnection as error:
        return Check("Server", "fail", f"EMX_URL: {error}", "Correct EMX_URL or EMX_API_KEY.")
    except Unauthenticated as error:
        return Check("Server", "fail", f"{url}: {error}", "Set EMX_API_KEY to a key of this server.")
    except Forbidden as error:
        return Check("Server", "warn", f"{url}: {error}", "Use a key with the scope read to fetch reports.")
    except ApiError as error:
        return Check("Server", "fail", f"{url}: {error}", "Start the server, or correct EMX_URL.")
    missing = ", ".join(name for name, passed in readiness.checks.items() if not passed)
    if not readiness.ready:
        return Check("Server", "fail", f"{url} runs, without {missing}", "Its logs say why.")
    return Check("Server", "ok", f"{url} is ready")


def nearest_existing(folder: Path) -> Path:
    """Return the folder itself, or the nearest parent that exists."""
    resolved = folder.resolve()
    return next(parent for parent in (resolved, *resolved.parents) if parent.exists())
