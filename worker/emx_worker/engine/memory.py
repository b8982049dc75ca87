"""Finds how much memory the engine may use, and whether it ran out."""

from pathlib import Path

import psutil
import torch

_SHARE = 0.8
"""Share of the free memory that the engine may use. The rest is for images, messages and other processes."""

_CGROUP = Path("/sys/fs/cgroup")


def available(device: torch.device) -> int:
    """Return how many bytes the engine may use on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _SHARE)
    free = int(psutil.virtual_memory().available)
    limit = _container_free()
    return int((free if limit is None else min(free, limit)) * _SHARE)


def _container_free() -> int | None:
    """Return the bytes that a container's limit leaves; None without a limit (control groups, version 2)."""
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
    # The system frees unused file pages when memory is requested.
    return None if limit == "max" else max(int(limit) - used + inactive, 0)


def ran_out(error: Exception) -> bool:
    """Tell whether an exception means that memory ran out. On the CPU torch raises a plain RuntimeError for it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
