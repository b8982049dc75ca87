"""Runs the product's own processes, with faults to come.

``python -m tests.chaos.product_process MODULE`` is ``python -P -m MODULE`` with the patches of ``product_faults``.
Without a module it imports once what all of them need, which takes a worker five seconds, and then forks a process
for each line of its input (JSON: module, environment, log), and answers with its id. It ends with its input, and
every process that it forked ends with it.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.chaos.fault_folder import FaultFolder
from tests.chaos.product_faults import install

FAULTS, DISK = "CHAOS_FAULTS", "CHAOS_DISK"
"""Variables that name the fault folder, and the folder of a store that is one."""

_PRELOADED = (
    "celery.apps.worker",
    "celery.concurrency.thread",
    "celery.worker.consumer",
    "kombu.transport.redis",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.loops.uvloop",
    "emx_gateway.app",
    "emx_gateway.http.server",
    "emx_gateway.courier.dispatcher",
    "emx_worker.job_runner",
)
"""None of them reads the settings when it is imported."""

_PR_SET_PDEATHSIG = 1


def run(module: str) -> None:
    """Become a process of the product."""
    disk = os.environ.get(DISK)
    faults = FaultFolder(Path(os.environ[FAULTS]))
    install(faults, is_worker=module == "emx_worker", disk=Path(disk) if disk else None)
    if "faketime" in os.environ.get("LD_PRELOAD", ""):
        time.sleep = _sleep
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _sleep(seconds: float) -> None:
    """Sleep without clock_nanosleep, which fails under libfaketime 0.9.10 where the monotonic clock is real."""
    select.select([], [], [], seconds)


def _fork_until_told() -> str | None:
    """Fork a process for each line. Return the module to run in the child; None once the input has ended."""
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # else the first collection of each child copies all of this memory
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children: the system shall forget them
    print("ready", flush=True)
    while line := sys.stdin.readline():
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            return _begin(order)
        print(child, flush=True)
    return None


def _begin(order: dict[str, Any]) -> str:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log, nothing = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT), os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.update(order["environment"])
    atexit.register(os._exit, 0)  # after all else, instead of clearing modules, which copies their memory first
    return str(order["module"])


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else _fork_until_told()
    if chosen:
        run(chosen)
