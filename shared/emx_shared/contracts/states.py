"""The states of jobs and batches: one vocabulary for ledger, API, webhooks, metrics and documents."""

from enum import StrEnum


class JobState(StrEnum):
    """How far a job has come.

    ``queued → running → succeeded | failed | cancelled | expired``, and back to queued when a worker is lost.
    """

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """Whether the job has ended, for good."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class BatchState(StrEnum):
    """How far a batch has come. It has succeeded when all its items have ended, each in its own state."""

    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
