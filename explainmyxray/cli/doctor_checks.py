"""What ``emx doctor`` looks at: each check says how it is, and what to do where it isn't well."""

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

from emx_shared.settings import Settings

Status = Literal["ok", "warn", "fail"]
_GB = 10**9
_LITTLE_DISK, _SCARCE_DISK = 500 * 2**20, 5 * _GB
_DEMO_MEMORY = 2 * _GB
"""Bytes for gateway, courier and a worker with the demo model."""


@dataclass(frozen=True)
class Check:
    name: str
    status: Status
    found: str
    todo: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def examine(chosen: Settings) -> Iterator[Check]:
    """All checks, in the order in which things are needed."""
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
    """On one that is too old, pip installs nothing of this."""
    return Check("Python", "ok", f"{platform.python_version()} at {sys.executable}")


def packages() -> Check:
    rooms = {"gateway": ("fastapi", "redis", "celery"), "worker": ("torch", "transformers", "llguidance")}
    missing = [room for room, modules in rooms.items() if not all(find_spec(module) for module in modules)]
    if missing:
        todo = f"The client works. For more: pip install 'explainmyxray[{','.join(missing)}]'"
        return Check("Packages", "warn", f"those of {' and '.join(missing)} are not installed", todo)
    return Check("Packages", "ok", "client, gateway and worker")


def memory() -> Check:
    free = free_memory()
    if free is None:
        return Check("Memory", "warn", "can't be told on this system", f"{_DEMO_MEMORY / _GB:.0f} GB are needed.")
    found = f"{free / _GB:.1f} GB free"
    if free < _DEMO_MEMORY:
        return Check("Memory", "warn", found, f"`emx up` needs {_DEMO_MEMORY / _GB:.0f} GB: end other programs.")
    return Check("Memory", "ok", found)


def free_memory() -> int | None:
    """Bytes that programs may still take; None where that can't be told."""
    if find_spec("psutil"):
        import psutil

        return int(psutil.virtual_memory().available)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)


def disk(chosen: Settings) -> Check:
    from emx_shared.store.selection import folder_of

    place = _existing(folder_of(chosen.store) or Path.cwd())
    free = shutil.disk_usage(place).free
    found = f"{free / _GB:.1f} GB free at {place}"
    todo = "Free some, or choose another place: emx up --data DIR, or EMX_STORE"
    if free < _LITTLE_DISK:
        return Check("Disk", "fail", found, todo)
    return Check("Disk", "warn" if free < _SCARCE_DISK else "ok", found, todo if free < _SCARCE_DISK else "")


def redis(chosen: Settings) -> Check:
    from explainmyxray.supervisor import CannotStart, find_redis

    if "redis" not in chosen.model_fields_set:
        try:
            return Check("Redis", "ok", f"`emx up` will start {find_redis()}")
        except CannotStart as error:
            return Check("Redis", "fail", "no redis-server", f"{error} Or set EMX_REDIS to one that runs.")
    if not find_spec("redis"):
        return Check("Redis", "warn", "not asked", "pip install 'explainmyxray[service]'")
    from redis import Redis
    from redis.exceptions import RedisError

    try:
        Redis.from_url(chosen.redis, socket_connect_timeout=3, socket_timeout=3).ping()
    except (RedisError, ValueError) as error:
        return Check(
            "Redis", "fail", f"EMX_REDIS can't be reached ({type(error).__name__})", "Start it, or correct it."
        )
    return Check("Redis", "ok", "EMX_REDIS answers")


def store(chosen: Settings) -> Check:
    from emx_shared.store import StoreError, open_store
    from emx_shared.store.selection import folder_of

    folder = folder_of(chosen.store)
    if folder and not folder.exists():
        parent = _existing(folder)
        if os.access(parent, os.W_OK):
            return Check("Store", "ok", f"{folder} will be made when it is needed")
        return Check("Store", "fail", f"{folder} can't be made in {parent}", "Choose another: EMX_STORE=file:DIR")
    try:
        open_store(chosen).check()
    except StoreError as error:
        return Check(
            "Store", "fail", f"{chosen.store}: {error}", "See EMX_STORE, EMX_S3_ACCESS_KEY, EMX_S3_SECRET_KEY."
        )
    except ImportError as error:
        return Check("Store", "warn", f"not asked ({error})", "pip install 'explainmyxray[service]'")
    except OSError as error:
        return Check("Store", "fail", f"{chosen.store}: {error.strerror}", "Make it writable, or choose another.")
    return Check("Store", "ok", f"{chosen.store} keeps what it is given, once")


def model(chosen: Settings) -> Check:
    name = chosen.model
    if chosen.server:
        return Check("Model", "ok", f"{name}, which {chosen.server} runs")
    there = (Path(name) / "config.json").is_file()
    if Path(name).is_absolute() and not there:
        return Check("Model", "fail", f"there is no checkpoint in {name}", "Correct EMX_MODEL, or unset it.")
    if not find_spec("torch"):
        todo = "pip install 'explainmyxray[worker]', or let a server read: EMX_URL"
        return Check("Model", "warn", f"{name}; what it needs can't be told without torch", todo)
    from explainmyxray.cli.model_commands import Unavailable
    from explainmyxray.cli.model_commands import examine as needs

    try:
        needed = needs(name)
    except (Unavailable, RuntimeError) as error:
        return Check("Model", "fail", str(error), "See `emx model check`.")
    found = f"{name} needs {needed['memory']['int4'] / _GB:.1f} GB and runs on {needed['runs_on']}"
    if needed["obstacles"]:
        return Check("Model", "fail", found, " ".join(needed["obstacles"]))
    if needed["to_download"]:
        return Check("Model", "warn", found, f"It isn't here yet: `emx model pull {name}`")
    return Check("Model", "ok", found)


def port(chosen: Settings) -> Check:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", chosen.port))
        except OSError:
            return _who_has(chosen.port)
    return Check("Port", "ok", f"{chosen.port} is free")


def _who_has(number: int) -> Check:
    from explainmyxray.client import ApiError, Client

    try:
        with Client(f"http://127.0.0.1:{number}", timeout=3, retries=0) as client:
            client.ready()
    except ApiError:
        return Check("Port", "fail", f"{number} is in use", f"Choose another: emx up --port {number + 1}")
    return Check("Port", "ok", f"ExplainMyXray is running on {number}")


def server(url: str) -> Check:
    from explainmyxray.client import ApiError, Client, Forbidden, Unauthenticated

    try:
        with Client(url, timeout=10, retries=0) as client:
            readiness = client.ready()
            next(client.jobs(), None)
    except ValueError as error:
        return Check("Server", "fail", f"EMX_URL: {error}", "Correct it.")
    except Unauthenticated as error:
        return Check("Server", "fail", f"{url}: {error}", "Set EMX_API_KEY.")
    except Forbidden as error:
        return Check("Server", "warn", f"{url}: {error}", "Reports can't be read with it.")
    except ApiError as error:
        return Check("Server", "fail", f"{url}: {error}", "Start it, or correct EMX_URL.")
    missing = ", ".join(name for name, there in readiness.checks.items() if not there)
    if not readiness.ready:
        return Check("Server", "fail", f"{url} runs, without {missing}", "Its logs say why.")
    return Check("Server", "ok", f"{url} is ready")


def _existing(place: Path) -> Path:
    """The folder itself, or the nearest one above it that there is."""
    resolved = place.resolve()
    return next(parent for parent in (resolved, *resolved.parents) if parent.exists())
