"""Redis emptied and out of memory. ``stop-redis`` is a Redis that hangs."""

import time

from tests.chaos.bench import Bench, Phase, Row


def _empty(bench: Bench, row: Row) -> None:
    with bench.under_load(row):
        bench.system.redis.flushall()


def _fill(bench: Bench, row: Row) -> None:
    with bench.under_load(row):
        bench.system.redis.config_set("maxmemory", 1)
        time.sleep(bench.system.pace.spell)
        bench.system.redis.config_set("maxmemory", 0)


PHASES = [
    Phase("redis-emptied", _empty, "FLUSHALL"),
    Phase("redis-full", _fill, "`maxmemory` is reached: every write fails"),
]
