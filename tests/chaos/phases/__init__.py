"""The rows of the matrix, in the order in which they run."""

from tests.chaos.bench import Phase
from tests.chaos.phases import clients, clocks, fault_points, processes, records, redis_server, store_server

PHASES: tuple[Phase, ...] = (
    *processes.PHASES,
    *redis_server.PHASES,
    *store_server.PHASES,
    *clients.PHASES,
    *records.PHASES,
    *clocks.PHASES,
    *fault_points.PHASES,
)
