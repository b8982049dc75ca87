"""The ledger: each job reaches exactly one outcome, whatever process dies and whenever.

Object storage is the truth and Redis is disposable. Each operation is a fixed sequence of writes that may
stop after any of them and be run again by anyone; there is one module for each, and one function tells its story.
"""

from emx_shared.ledger.batches.lifecycle import (
    NewBatch,
    Progress,
    erase_batch,
    expand,
    failed_rows,
    pause,
    progress,
    resume,
    retry,
    submit_batch,
    submitted_batch_before,
)
from emx_shared.ledger.jobs.delivery import Answer, deliver, redeliver
from emx_shared.ledger.jobs.erasure import end_erasure, erase, erase_group
from emx_shared.ledger.jobs.finish import cancel, expire, finish
from emx_shared.ledger.jobs.start import Started, hand_back, start
from emx_shared.ledger.jobs.submission import Abandoned, Conflict, NewJob, WasErased, submit, submitted_before
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.reconciler import Reconciler

__all__ = [
    "Abandoned",
    "Answer",
    "Conflict",
    "Ledger",
    "NewBatch",
    "NewJob",
    "Progress",
    "Reconciler",
    "Started",
    "WasErased",
    "cancel",
    "deliver",
    "end_erasure",
    "erase",
    "erase_batch",
    "erase_group",
    "expand",
    "expire",
    "failed_rows",
    "finish",
    "hand_back",
    "pause",
    "progress",
    "redeliver",
    "resume",
    "retry",
    "start",
    "submit",
    "submit_batch",
    "submitted_batch_before",
    "submitted_before",
]
