"""Cancellations: hints to the worker that a job in hand was cancelled."""

from emx_shared.redis_state.redis_connection import RedisConnection

_LIFETIME = 3600
"""Seconds that a hint is kept."""


class Cancellations:
    """Lets a worker stop reading early; the ledger has decided already."""

    def __init__(self, connection: RedisConnection) -> None:
        self._redis = connection

    def request(self, job: str) -> None:
        """Ask the worker that reads the job to stop."""
        self._redis.attempt(lambda: self._redis.client.set(f"cancel:{job}", 1, ex=_LIFETIME), None)

    def requested_among(self, jobs: list[str]) -> set[str]:
        """Return those of the jobs that were asked to stop."""
        return self._redis.flagged("cancel", jobs)
