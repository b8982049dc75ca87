"""Feedback: what readers say of a report, stored beside it in versions. The report itself never changes.

An erasure must leave nothing of it, though a writer may be slower than the erasure and may die at any instruction.
So a first version is written in two steps: an object without any words, and then the version in its place, under
the condition that the object is still there. In between, the writer looks whether the job is being erased. If that
begins later, what the erasure deletes is what the second step would replace, and no other object ever has the same
content.
"""

from collections.abc import Iterator

from emx_shared.ledger import object_keys
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import CutRecord, Feedback, FeedbackVersion, JobRecord
from emx_shared.root_error import ExplainMyXrayError
from emx_shared.store import NoSuchObject

MOST_VERSIONS = 100
"""Versions of one job's feedback."""


class FeedbackConflict(ExplainMyXrayError):
    """The version that a reader's feedback follows isn't the newest.

    Attributes:
        newest: number of the version that is; 0 if there is none.
    """

    def __init__(self, newest: int) -> None:
        super().__init__(f"The newest version is {newest}.")
        self.newest = newest


class TooManyVersions(ExplainMyXrayError):
    """The job has as much feedback as a job may have."""


class BeingErased(ExplainMyXrayError):
    """The job is being erased, or was erased meanwhile."""


def add_feedback(ledger: Ledger, job: JobRecord, new: FeedbackVersion) -> None:
    """Write a version of a job's feedback, unless another reader was first. Safe to stop anywhere.

    Args:
        ledger: where the job is.
        job: its record.
        new: the version, whose number is that of the newest and one.

    Raises:
        FeedbackConflict: it isn't; nothing was written.
        TooManyVersions: there are MOST_VERSIONS of them.
        BeingErased: nothing is left of it.
        StoreError: the store is unavailable; the version may have been written.
    """
    store, key = ledger.store, object_keys.feedback(job.id)
    while True:
        found = _stored(ledger, key)
        so_far = _parsed(found)
        if so_far.newest == new:  # by a PUT that was answered late and sent again
            return
        if new.version != len(so_far.versions) + 1:
            raise FeedbackConflict(len(so_far.versions))
        if new.version > MOST_VERSIONS:
            raise TooManyVersions
        store.put(object_keys.feedback_marker(job.tenant, job.id), b"")
        if found is None:
            found = Feedback().dump()
            if not store.put_if_absent(key, found):
                continue
        if _is_erased(ledger, job.id):
            erase_feedback(ledger, job.tenant, job.id)
            raise BeingErased
        grown = so_far.model_copy(update={"versions": (*so_far.versions, new)})
        if store.replace(key, found, grown.dump()):
            return


def erase_feedback(ledger: Ledger, tenant: str, job: str) -> None:
    """Delete what readers said of a job, and then the marker that leads to it. Safe to repeat."""
    ledger.store.delete(object_keys.feedback(job))
    ledger.store.delete(object_keys.feedback_marker(tenant, job))


def reviewed_jobs(ledger: Ledger, tenant: str, after: str | None = None) -> Iterator[str]:
    """Yield the ids of a tenant's jobs that may have feedback, in their order, beginning behind ``after``."""
    prefix = object_keys.feedback_markers(tenant)
    for entry in ledger.store.list(prefix):
        id = entry.key.removeprefix(prefix)
        if after is None or id > after:
            yield id


def _stored(ledger: Ledger, key: str) -> bytes | None:
    try:
        return ledger.store.get(key)
    except NoSuchObject:
        return None


def _parsed(data: bytes | None) -> Feedback:
    """Return what is stored; an object without versions if it is absent or was cut. Raises UnreadableRecord."""
    try:
        return Feedback() if data is None else Feedback.load(data)
    except CutRecord:
        return Feedback()


def _is_erased(ledger: Ledger, job: str) -> bool:
    """Return whether a job is being erased or was: an erasure's marker goes only after its tombstone is there."""
    return ledger.store.exists(object_keys.erasing(job)) or ledger.job(job) is None
