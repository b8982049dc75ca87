"""Processes that are killed, asked to end, and paused for longer than a lease."""

import signal
import time
from collections.abc import Callable
from functools import partial

from tests.chaos.bench import Bench, Phase, Row
from tests.chaos.managed_process import ManagedProcess
from tests.chaos.system import ROLES, Role

_GRACE_SECONDS = 10.0


def _victims(bench: Bench, role: Role | None) -> list[ManagedProcess]:
    return bench.system.of(*ROLES) if role is None else [bench.random.choice(bench.system.processes[role])]


def _end(number: signal.Signals, role: Role | None, bench: Bench, row: Row) -> None:
    """Signal one process of a role, or all of all roles, and start them again some time after they have ended."""
    victims = _victims(bench, role)
    with bench.under_load(row):
        for victim in victims:
            victim.kill(number)
        _wait(victims, number, row)
        time.sleep(bench.system.pace.down)
        for victim in victims:
            victim.start()


def _wait(victims: list[ManagedProcess], number: signal.Signals, row: Row) -> None:
    """Wait for the end of all, and kill those that don't end in time, as ``emx up`` does."""
    began = time.monotonic()
    while any(victim.is_alive for victim in victims) and time.monotonic() < began + _GRACE_SECONDS:
        time.sleep(0.02)
    for victim in victims:
        if victim.is_alive:
            row.notes.append(f"{victim.name} didn't end within {_GRACE_SECONDS:.0f} s of {number.name}")
            victim.kill()
            victim.wait()


def _pause(role: Role | None, bench: Bench, row: Row) -> None:
    victims = _victims(bench, role)
    with bench.under_load(row):
        for victim in victims:
            victim.send(signal.SIGSTOP)
        time.sleep(bench.system.pace.beyond_lease)
        for victim in victims:
            victim.send(signal.SIGCONT)


_ACTS: tuple[tuple[str, str, Callable[[Role | None, Bench, Row], None]], ...] = (
    ("kill", "SIGKILL for {}", partial(_end, signal.SIGKILL)),
    ("term", "SIGTERM for {}", partial(_end, signal.SIGTERM)),
    ("stop", "SIGSTOP for {}, for longer than a lease", _pause),
)
_VICTIMS: tuple[tuple[str, Role | None, str], ...] = (
    ("gateway", "gateway", "a gateway"),
    ("courier", "courier", "a courier"),
    ("worker", "worker", "a worker"),
    ("redis", "redis", "Redis"),
    ("all", None, "every gateway, courier and worker, and Redis"),
)
PHASES = [
    Phase(f"{act}-{name}", partial(run, role), heading.format(who), beside=role in ("courier", "worker"))
    for act, heading, run in _ACTS
    for name, role, who in _VICTIMS
]
