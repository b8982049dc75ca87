"""The ledger: each job reaches exactly one outcome, whatever process dies and whenever.

Object storage is the truth and Redis is disposable. Each operation is a fixed sequence of writes that may
stop after any of them and be run again by anyone; there is one module for each, and one function tells its story.
"""

from shared.ledger.batch import NewBatch, Progress, expand, pause, progress, resume, retry_failed, submit_batch
from shared.ledger.deliver import Answer, deliver, redeliver
from shared.ledger.erase import erase, erase_group
from shared.ledger.finish import cancel, expire, finish
from shared.ledger.ledger import Ledger
from shared.ledger.reconcile import Reconciler
from shared.ledger.start import Started, hand_back, start
from shared.ledger.submit import Abandoned, Conflict, NewJob, submit

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
    "cancel",
    "deliver",
    "erase",
    "erase_group",
    "expand",
    "expire",
    "finish",
    "hand_back",
    "pause",
    "progress",
    "redeliver",
    "resume",
    "retry_failed",
    "start",
    "submit",
    "submit_batch",
]
