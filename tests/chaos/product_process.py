"""Runs the product's own processes, with faults to come.

``python -m tests.chaos.product_process MODULE`` is ``python -P -m MODULE`` with the patches of ``product_faults``.
Without a module it imports once what all of them need, which takes a worker five seconds, and then forks a process
for each line of its input (JSON: module, environment, log), and answers with its id. It ends with its input, and
every process that it forked ends with it.
"""

import ctypes
import importlib
import json
import os
import runpy
import signal
import sys
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
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _fork_until_told() -> str | None:
    """Fork a process for each line. Return the module to run in the child; None once the input has ended."""
    for name in _PRELOADED:
        importlib.import_module(name)
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
    return str(order["module"])


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else _fork_until_told()
    if chosen:
        run(chosen)
