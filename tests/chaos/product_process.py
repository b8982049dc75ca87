"""``python -m tests.chaos.product_process MODULE``: ``python -P -m MODULE``, with faults (``product_faults``)."""

import os
import runpy
import select
import sys
import time
from pathlib import Path
from typing import SupportsIndex

from tests.chaos.fault_folder import FaultFolder
from tests.chaos.product_faults import install

FAULTS, DISK = "CHAOS_FAULTS", "CHAOS_DISK"
"""Variables that name the fault folder, and the folder of a store that is one."""


def run(module: str) -> None:
    """Become a process of the product."""
    disk = os.environ.get(DISK)
    faults = FaultFolder(Path(os.environ[FAULTS]))
    install(faults, is_worker=module == "emx_worker", disk=Path(disk) if disk else None)
    if "faketime" in os.environ.get("LD_PRELOAD", ""):
        time.sleep = _sleep
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _sleep(seconds: "SupportsIndex | float", /) -> None:
    """Sleep without clock_nanosleep, which fails under libfaketime 0.9.10 where the monotonic clock is real."""
    select.select([], [], [], float(seconds))


if __name__ == "__main__":
    run(sys.argv[1])
