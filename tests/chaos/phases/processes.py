"""Processes that are killed, asked to end, and paused for longer than a lease."""

import signal
import time
from functools import partial

from tests.chaos.bench import Bench, Phase, Row
from tests.chaos.managed_process import ManagedProcess
from tests.chaos.system import ROLES, Role

_GRACE_SECONDS = 12.0


def _victims(bench: Bench, role: Role | None) -> list[ManagedProcess]:
    return bench.system.of(*ROLES) if role is None else [bench.random.choice(bench.system.processes[role])]


def _end(role: Role | None, number: signal.Signals, bench: Bench, row: Row) -> None:
    """Signal one process of a role, or all of all roles, and start them again some time after they have ended."""
    victims = _victims(bench, role)
    with bench.under_load(row):
        for victim in victims:
            victim.kill(number)
        until = time.monotonic() + _GRACE_SECONDS
        for victim in victims:
            if not victim.wait(max(until - time.monotonic(), 0)):
                row.notes.append(f"{victim.name} didn't end within {_GRACE_SECONDS:.0f} s of {number.name}")
                victim.kill()
                victim.wait()
        time.sleep(bench.system.pace.down)
        for victim in victims:
            victim.start()


def _pause(role: Role | None, bench: Bench, row: Row) -> None:
    victims = _victims(bench, role)
    with bench.under_load(row):
        for victim in victims:
            victim.send(signal.SIGSTOP)
        time.sleep(bench.system.pace.beyond_lease)
        for victim in victims:
            victim.send(signal.SIGCONT)


def _phases(name: str, role: Role | None) -> list[Phase]:
    who = "every gateway, courier and worker, and Redis" if role is None else f"a {role}"
    if role == "redis":
        who = "Redis"
    return [
        Phase(f"kill-{name}", partial(_end, role, signal.SIGKILL), f"SIGKILL for {who}"),
        Phase(f"term-{name}", partial(_end, role, signal.SIGTERM), f"SIGTERM for {who}"),
        Phase(f"stop-{name}", partial(_pause, role), f"SIGSTOP for {who}, for longer than a lease"),
    ]


PHASES = [phase for role in ROLES for phase in _phases(role, role)] + _phases("all", None)
