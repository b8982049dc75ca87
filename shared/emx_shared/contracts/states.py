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
    """How far a batch has come. Completed means that all items have ended, each in its own state."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"

    @staticmethod
    def of_outcome(state: JobState) -> "BatchState":
        """Return the state of a batch whose outcome has this state, which the ledger records as a job's."""
        return BatchState.CANCELLED if state == JobState.CANCELLED else BatchState.COMPLETED
