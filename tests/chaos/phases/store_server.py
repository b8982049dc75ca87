"""The store read-only, full, failing, slow, cut, killed, paused; and couriers that start while it is away."""

import time
from functools import partial

from tests.chaos.bench import Bench, NotHere, Phase, Row
from tests.chaos.stores import StoreFault


def _break(fault: StoreFault, bench: Bench, row: Row) -> None:
    if why := bench.system.store.impossible.get(fault):
        raise NotHere(why)
    with bench.under_load(row), bench.system.store.broken(fault) as said:
        row.notes.append(said)
        time.sleep(bench.system.pace.beyond_lease if fault == "paused" else bench.system.pace.spell)


def _restart_couriers(bench: Bench, row: Row) -> None:
    couriers = bench.system.of("courier")
    with bench.under_load(row), bench.system.store.broken("away"):
        for courier in couriers:
            courier.kill()
        for courier in couriers:
            courier.wait()
            courier.start()
        time.sleep(bench.system.pace.beyond_lease)


PHASES = [
    Phase("store-read-only", partial(_break, "read-only"), "the store refuses writes"),
    Phase("store-full", partial(_break, "full"), "the store is full"),
    Phase("store-failing", partial(_break, "failing"), "the store fails at reads and writes"),
    Phase("store-slow", partial(_break, "slow"), "the store is slow"),
    Phase("store-cut", partial(_break, "cut"), "writes are cut"),
    Phase("store-killed", partial(_break, "killed"), "SIGKILL for the store's server"),
    Phase("store-paused", partial(_break, "paused"), "the store hangs for longer than a lease"),
    Phase(
        "couriers-without-store", _restart_couriers, "both couriers are killed and start while the store is away"
    ),
]
