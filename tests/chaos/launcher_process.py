"""The parent of every process under test: ``python -m tests.chaos.launcher_process [preload]``.

For each line of its input, which is an ``Order`` in JSON, it forks a process and answers with its id. The process
runs a command, or a module of the product. With ``preload`` it imports once what the product's processes need, so
that a fork starts in hundredths of a second what takes a worker five. It ends with its input, and with it end all
its children, however the harness died.
"""

import atexit
import ctypes
import gc
import importlib
import os
import signal
import sys

from pydantic import BaseModel

from tests.chaos.product_process import run

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


class Order(BaseModel):
    """What to start.

    Attributes:
        command: to execute; empty for a module of the product that is run in the fork itself.
        module: that module.
        environment: variables beside those of this process.
        log: file to which its output is appended.
    """

    command: list[str] = []
    module: str = ""
    environment: dict[str, str] = {}
    log: str


def _fork_for_each_line() -> Order | None:
    """Fork a process for each line. Return its order in the child; None once the input has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children: the system shall forget them
    print("ready", flush=True)
    while line := sys.stdin.readline():
        order = Order.model_validate_json(line)
        child = os.fork()
        if child == 0:
            return order
        print(child, flush=True)
    return None


def _become(order: Order) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log, nothing = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.update(order.environment)
    if order.command:
        os.execvp(order.command[0], order.command)
    atexit.register(os._exit, 0)  # after all else, instead of clearing modules, which copies their memory first
    run(order.module)


if __name__ == "__main__":
    if "preload" in sys.argv:
        for name in _PRELOADED:
            importlib.import_module(name)
    gc.freeze()  # else the first collection of each child copies all of this memory
    if chosen := _fork_for_each_line():
        _become(chosen)
