"""Machines whose clocks step."""

import time
from pathlib import Path

from explainmyxray.supervisor import free_port
from tests.chaos.bench import Bench, NotHere, Phase, Row
from tests.chaos.system import Role

_STEPS: tuple[tuple[Role, str], ...] = (("gateway", "-25h"), ("courier", "+25h"), ("worker", "+25h"))
_START_SECONDS = 15.0


def _step(bench: Bench, row: Row) -> None:
    """Start one process more of each role, on machines whose clocks are right at first, and let these step."""
    clocks = {role: bench.system.faults.path / f"clock-{role}" for role, _ in _STEPS}
    for clock in clocks.values():
        clock.write_text("+0")
    try:
        ports = {role: free_port() for role, _ in _STEPS}
        strange = [bench.system.with_another_clock(role, clocks[role], ports[role]) for role, _ in _STEPS]
    except FileNotFoundError as error:
        raise NotHere(str(error)) from None
    usual = bench.load.gateways
    try:
        _wait_for(bench, ports["gateway"])
        bench.load.gateways = [*usual, f"http://127.0.0.1:{ports['gateway']}"]
        with bench.under_load(row):
            for role, step in _STEPS:
                _set(clocks[role], step)
            time.sleep(1 + bench.system.pace.beyond_lease)
            for role, _ in _STEPS:
                _set(clocks[role], "+0")
    finally:
        bench.load.gateways = usual
        bench.system.forget(strange)
    row.notes.append(", ".join(f"a {role} at {step}" for role, step in _STEPS))
    restarts = {process.name: process.starts - 1 for process in strange if process.starts > 1}
    if restarts:
        row.notes.append(f"they ended by themselves: {restarts}")


def _wait_for(bench: Bench, port: int) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and not bench.load.is_ready(f"http://127.0.0.1:{port}"):
        time.sleep(0.1)


def _set(clock: Path, step: str) -> None:
    part = clock.with_suffix(".part")
    part.write_text(step)
    part.replace(clock)


PHASES = [
    Phase("clock-steps", _step, "the clocks of a gateway, a courier and a worker step by 25 hours", beside=True)
]
