"""How much memory a process has taken. ``ru_maxrss`` won't do: a child begins with its parent's."""

from pathlib import Path

PRINT_PEAK = (
    "print(next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')) // 1024)\n"
)
"""A line of Python that prints the largest resident memory of its process so far, in megabytes."""


def peak_megabytes() -> int:
    """Return the largest resident memory of this process since ``forget_peak``."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def forget_peak() -> int:
    """Let the peak be what is taken now, and return it (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak_megabytes()
