"""How many studies fit into memory, and how to tell that it ran out."""

from pathlib import Path

import psutil
import torch

_SHARE = 0.8
"""Of what is free, what the engine may plan with: the rest is for images, messages and neighbours."""

_CGROUP = Path("/sys/fs/cgroup")


def available(device: torch.device) -> int:
    """Bytes that the engine may plan with on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _SHARE)
    free = psutil.virtual_memory().available
    limit = _container_free()
    return int((free if limit is None else min(free, limit)) * _SHARE)


def _container_free() -> int | None:
    """What a container's limit leaves, if there is one (control groups, version 2)."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        inactive = next(
            int(line.split()[1])
            for line in (_CGROUP / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
    except (OSError, ValueError, StopIteration):
        return None
    # File pages that nobody uses are given back when memory is asked for.
    return None if limit == "max" else max(int(limit) - used + inactive, 0)


def ran_out(error: Exception) -> bool:
    """Whether an exception says that memory ran out. torch raises a bare RuntimeError where the CPU's does."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
