"""Why a submission did not become a job or a batch."""


class IdempotencyConflict(Exception):
    """The idempotency key was used before, for another request."""


class SubmissionAbandoned(Exception):
    """The reconciler gave the submission up before it was committed; submitting again helps."""


class SubmissionErased(Exception):
    """What was submitted with this idempotency key was erased since, or is being erased."""
