"""The rows of the matrix, in the order in which they run.

Couriers die in the first ones: a webhook that one of them had in hand is tried again half a minute later.
"""

from tests.chaos.bench import Phase
from tests.chaos.phases import clients, clocks, fault_points, processes, records, redis_server, store_server

PHASES: tuple[Phase, ...] = (
    *fault_points.PHASES,
    *store_server.PHASES,
    *processes.PHASES,
    *redis_server.PHASES,
    *clients.PHASES,
    *records.PHASES,
    *clocks.PHASES,
)
