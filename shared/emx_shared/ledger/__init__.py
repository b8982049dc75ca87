"""The ledger: each job reaches exactly one outcome, whatever process dies and whenever.

Object storage is the truth and Redis is disposable. Each operation is a fixed sequence of writes that may
stop after any of them and be run again by anyone; there is one module for each, and one function tells its story.
"""

from emx_shared.ledger.batches.batch_erasure import end_batch_erasure, erase_batch
from emx_shared.ledger.batches.batch_progress import (
    BatchProgress,
    advance_batch,
    batch_progress,
    failed_rows,
    is_permanent_failure,
    pause_batch,
    resume_batch,
)
from emx_shared.ledger.batches.batch_submission import NewBatch, claim_batch, retry_batch, submit_batch
from emx_shared.ledger.jobs.delivery import (
    EndpointAnswer,
    deliver,
    longest_try,
    put_off,
    redeliver,
    send_at_once,
)
from emx_shared.ledger.jobs.erasure import end_erasure, erase, erase_group
from emx_shared.ledger.jobs.feedback import (
    MOST_VERSIONS,
    BeingErased,
    FeedbackConflict,
    TooManyVersions,
    add_feedback,
    reviewed_jobs,
)
from emx_shared.ledger.jobs.finish import cancel, event_type, expire, finish
from emx_shared.ledger.jobs.start import Started, begin, hand_back, start, take
from emx_shared.ledger.jobs.submission import Claim, NewJob, claim_job, submit
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.reconciler import Reconciler
from emx_shared.ledger.submission_errors import IdempotencyConflict, SubmissionAbandoned, SubmissionErased

__all__ = [
    "MOST_VERSIONS",
    "BatchProgress",
    "BeingErased",
    "Claim",
    "EndpointAnswer",
    "FeedbackConflict",
    "IdempotencyConflict",
    "Ledger",
    "NewBatch",
    "NewJob",
    "Reconciler",
    "Started",
    "SubmissionAbandoned",
    "SubmissionErased",
    "TooManyVersions",
    "add_feedback",
    "advance_batch",
    "batch_progress",
    "begin",
    "cancel",
    "claim_batch",
    "claim_job",
    "deliver",
    "end_batch_erasure",
    "end_erasure",
    "erase",
    "erase_batch",
    "erase_group",
    "event_type",
    "expire",
    "failed_rows",
    "finish",
    "hand_back",
    "is_permanent_failure",
    "longest_try",
    "pause_batch",
    "put_off",
    "redeliver",
    "resume_batch",
    "retry_batch",
    "reviewed_jobs",
    "send_at_once",
    "start",
    "submit",
    "submit_batch",
    "take",
]
