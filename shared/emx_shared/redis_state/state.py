"""Everything that Redis knows of jobs, in one object."""

from emx_shared.redis_state.batch_counts import BatchCounts
from emx_shared.redis_state.batch_pace import BatchPace
from emx_shared.redis_state.cancellations import Cancellations
from emx_shared.redis_state.due_deliveries import DueDeliveries
from emx_shared.redis_state.epoch import Epoch
from emx_shared.redis_state.job_marks import JobMarks
from emx_shared.redis_state.leases import Leases
from emx_shared.redis_state.listings import Listings
from emx_shared.redis_state.live_text import LiveText
from emx_shared.redis_state.presence import Presence
from emx_shared.redis_state.redis_connection import RedisConnection
from emx_shared.redis_state.turns import Turns


class RedisState:
    """Redis's knowledge by concern.

    Reads and marks answer as if nothing were known while Redis is unavailable. What can't be answered that way
    raises RedisError: taking a lease, jobs' standings, a page of a listing, what is due.
    """

    def __init__(self, url: str, lease: float = 15.0) -> None:
        """Connect lazily to ``url``; ``lease`` is in seconds."""
        self.connection = RedisConnection(url)
        self.leases = Leases(self.connection, lease)
        self.marks = JobMarks(self.connection, lease)
        self.turns = Turns(self.connection)
        self.listings = Listings(self.connection)
        self.batch_counts = BatchCounts(self.connection)
        self.batch_pace = BatchPace(self.connection)
        self.due_deliveries = DueDeliveries(self.connection)
        self.live_text = LiveText(self.connection)
        self.cancellations = Cancellations(self.connection)
        self.epoch = Epoch(self.connection)
        self.workers = Presence(self.connection, "worker")
        self.couriers = Presence(self.connection, "courier")

    def close(self) -> None:
        """Close all connections; they are opened again when they are needed."""
        self.connection.client.close()

    def ping(self) -> bool:
        """Return whether Redis answers."""
        return bool(self.connection.attempt(self.connection.client.ping, False))
