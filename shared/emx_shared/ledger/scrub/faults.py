"""What may be wrong in a store: each kind with what it means, and what is done about it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class FaultKind(Enum):
    """A kind of fault: its name in JSON, what it is, and what mending does or, where nothing can, what to do."""

    NEWER = (
        "newer-version",
        "written by a newer version of ExplainMyXray",
        "Nothing: it is left alone. Check with that version.",
    )
    DAMAGED = (
        "damaged",
        "damaged, though whole JSON",
        "Restore it from a backup, or erase its job: that works. It is never changed by itself.",
    )
    RECORD_CUT = (
        "record-cut",
        "a record that was cut, so that its submission never counted",
        "The submission is given up: its key makes a new job, and its image is deleted.",
    )
    RECORD_LOST = (
        "record-lost",
        "a record is missing or cut, of a job or batch that was accepted",
        "Restore it from a backup. A client that repeats its submission with its idempotency key restores it too.",
    )
    ITEM_LOST = (
        "item-lost",
        "a batch's item whose record was cut",
        "The item is submitted again, as the manifest says.",
    )
    UNCOMMITTED = (
        "uncommitted",
        "a submission that stopped before it was accepted",
        "It is given up: its key makes a new job, and its image is deleted.",
    )
    OPEN_MARKER = (
        "open-marker",
        "an open marker that can't be read",
        "It is written anew; the deaths that it counted are forgotten.",
    )
    STILL_OPEN = ("still-open", "a job or batch that has ended, and is still open", "It is finished.")
    NOT_OPEN = (
        "not-open",
        "a job or batch without outcome that nobody attends to",
        "It is opened again: the courier sees to it.",
    )
    OUTCOME_CUT = (
        "outcome-cut",
        "an outcome that was cut, which counts as absent",
        "The job is opened again, and its image read again, unless it has expired.",
    )
    IMAGE_MISSING = (
        "image-missing",
        "the image of an open job is missing",
        "Restore it from a backup, or the job will fail as no-input.",
    )
    SURPLUS_IMAGE = ("surplus-image", "an image that no record names", "It is deleted.")
    WEBHOOK_NOT_OWED = ("webhook-not-owed", "a job or batch has ended without its webhook", "The webhook is owed.")
    NOT_COUNTED = ("not-counted", "a batch's item has ended and isn't counted", "It is counted.")
    COUNTED_TWICE = (
        "counted-twice",
        "a batch's item is counted in a state that it doesn't have",
        "The wrong marker is deleted.",
    )
    COUNTS_DIFFER = (
        "counts-differ",
        "a batch's outcome has other counts than its items",
        "Nothing: an outcome stays. Items and results say how it is.",
    )
    NOT_IN_GROUP = (
        "not-in-group",
        "a job, or a batch's rows, that an erasure by study or patient would miss",
        "The marker is written.",
    )
    STRAY_GROUP = ("stray-group", "a study's or patient's marker of a job that isn't theirs", "It is deleted.")
    STRAY_FEEDBACK = ("stray-feedback", "feedback, or a marker of it, of a job that is gone", "It is deleted.")
    FEEDBACK_NOT_LISTED = (
        "feedback-not-listed",
        "feedback that lists and exports would miss",
        "The marker is written.",
    )
    FEEDBACK_CUT = (
        "feedback-cut",
        "feedback that was cut, which counts as absent",
        "Restore it from a backup. Otherwise the next reader's feedback begins anew.",
    )
    ERASURE_STOPPED = ("erasure-stopped", "an erasure that stopped half-way", "It is brought to its end.")
    PAGE_LOST = (
        "page-lost",
        "a page of a manifest is missing or was cut",
        "It is made again of the jobs that its rows have. Rows without a job have no image then.",
    )
    CURSOR = ("cursor", "a batch's cursor that can't be read", "It is written anew.")
    STRAY_BATCH_FILE = (
        "stray-batch-file",
        "files of a batch that was erased or given up, or of a submission that lost to its twin",
        "They are deleted.",
    )
    DELIVERY_CUT = (
        "delivery-cut",
        "a webhook's record that was cut",
        "It is deleted, and the webhook of a job that has ended is owed again, with the same id.",
    )
    UPLOAD_LEFT = ("upload-left", "an upload that a job was made of", "It is deleted.")
    STALE_MARKER = ("stale-marker", "a marker of a batch that has no rows to read", "It is deleted.")
    KEY_DAMAGED = (
        "key-damaged",
        "an API key or signing secret that can't be read",
        "Make another; see `emx keys`.",
    )
    PROBE = ("probe", "an object with which a process tried the store", "It is deleted.")
    PART = ("part", "a write that was never finished", "It is deleted.")
    UNKNOWN = ("unknown", "an object that is none of the ledger's", "Look what it is.")

    def __init__(self, code: str, what: str, todo: str) -> None:
        self.code, self.what, self.todo = code, what, todo

    @property
    def is_fault(self) -> bool:
        """Whether anything is wrong; what a newer version wrote is only beyond this one."""
        return self is not FaultKind.NEWER


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        key: of the object at fault.
        mend: does what the kind says, and may be repeated; None where nothing can be done here. Raises StoreError,
            RedisError.
    """

    kind: FaultKind
    key: str
    mend: Callable[[], object] | None = None
