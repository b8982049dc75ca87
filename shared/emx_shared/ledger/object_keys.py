"""The key of each object of the ledger in the store."""

import hashlib
from collections.abc import Iterator

from emx_shared.contracts.states import JobState
from emx_shared.ledger.records import JobRecord, Record

JOBS = "jobs/"
DELIVERIES = "deliveries/"
UPLOADS = "uploads/"
USED_UPLOADS = "used-uploads/"
OPEN = "open/"
OUTBOX = "outbox/"
ERASE = "erase/"
UNREAD = "unread/"
GROUPS = "groups/"
BATCHES = "batches/"
FEEDBACK = "feedback/"
IMPORTS = "imports/"
PROBE = "probe/"

FORMAT = "format"
"""Names the version of the records in this store."""


def open_marker(id: str) -> str:
    """Return the key of the marker of a job or batch that still needs attention."""
    return f"{OPEN}{id}"


def record(id: str) -> str:
    """Return the key of the record of a job or batch, the commit point."""
    return f"{JOBS}{id}/request.json"


def id_of_record(key: str) -> str | None:
    """Return the job or batch whose record this is; None for another object."""
    id, _, name = key.removeprefix(JOBS).partition("/")
    return id if name == "request.json" else None


def outcome(id: str) -> str:
    """Return the key of the outcome of a job or batch."""
    return f"{JOBS}{id}/outcome.json"


def inputs(job: str) -> str:
    """Return the prefix of a job's images as received; the record names the one that counts."""
    return f"{JOBS}{job}/input-"


def job_input(job: str, sha256: str) -> str:
    """Return the key of a job's image as received."""
    return f"{inputs(job)}{sha256}"


def feedback(job: str) -> str:
    """Return the key of what readers said of a job's report, every version of it."""
    return f"{JOBS}{job}/feedback.json"


def feedback_markers(tenant: str) -> str:
    """Return the prefix of the markers of a tenant's jobs that may have feedback."""
    return f"{FEEDBACK}{tenant}/"


def feedback_marker(tenant: str, job: str) -> str:
    """Return the key of the marker by which lists and exports find a job's feedback."""
    return f"{feedback_markers(tenant)}{job}"


def outbox(delivery: str) -> str:
    """Return the key of a webhook that is owed."""
    return f"{OUTBOX}{delivery}"


def delivery(delivery: str) -> str:
    """Return the key of a webhook that was delivered or given up."""
    return f"{DELIVERIES}{delivery}"


def erasing(id: str) -> str:
    """Return the key of the marker of an erasure under way."""
    return f"{ERASE}{id}"


def groups(record: Record) -> Iterator[str]:
    """Yield the markers by which a job is found again by its study and its patient."""
    if isinstance(record, JobRecord):
        for kind, name in (("study", record.study), ("patient", record.patient)):
            if name is not None:
                yield f"{group(record.tenant, kind, name)}{record.id}"


def group(tenant: str, kind: str, name: str) -> str:
    """Return the prefix of a group's markers. The client's name, which may be of any length, is hashed."""
    return f"{GROUPS}{tenant}/{kind}/{hashlib.sha256(name.encode()).hexdigest()}/"


def upload(tenant: str, id: str) -> str:
    """Return the key of an image that was uploaded before its submission."""
    return f"{uploads(tenant)}{id}"


def uploads(tenant: str) -> str:
    """Return the prefix of a tenant's uploads."""
    return f"{UPLOADS}{tenant}/"


def used_upload(tenant: str, id: str) -> str:
    """Return the key of a marker: a job has been made of this upload."""
    return f"{USED_UPLOADS}{tenant}/{id}"


def imported(tenant: str, path: str) -> str:
    """Return the key of an image that the operator put into the store for a tenant's batches."""
    return f"{IMPORTS}{tenant}/{path}"


def batch(batch: str) -> str:
    """Return the prefix of all that belongs to a batch, except its record and its outcome."""
    return f"{BATCHES}{batch}/"


def submissions(batch: str) -> str:
    """Return the prefix of what all submissions of a batch brought."""
    return f"{BATCHES}{batch}/of-"


def submission(batch: str, nonce: str) -> str:
    """Return the prefix of what one submission brought: of several with one idempotency key, one counts."""
    return f"{submissions(batch)}{nonce}/"


def pages(batch: str, nonce: str) -> str:
    """Return the prefix of the manifest's pages."""
    return f"{submission(batch, nonce)}manifest-"


def page(batch: str, nonce: str, number: int) -> str:
    """Return the key of one page of the manifest."""
    return f"{pages(batch, nonce)}{number:05d}.json"


def batch_input(batch: str, nonce: str, sha256: str) -> str:
    """Return the key of an image that came with the batch."""
    return f"{submission(batch, nonce)}input-{sha256}"


def cursor(batch: str) -> str:
    """Return the key of the number of rows that were submitted at least."""
    return f"{BATCHES}{batch}/cursor"


def unread_batches(tenant: str) -> str:
    """Return the prefix of the markers of a tenant's unread batches."""
    return f"{UNREAD}{tenant}/"


def unread_batch(tenant: str, batch: str) -> str:
    """Return the key of the marker that exists while a manifest may have rows without a job."""
    return f"{unread_batches(tenant)}{batch}"


def paused(batch: str) -> str:
    """Return the key of the marker that exists while the batch is paused."""
    return f"{BATCHES}{batch}/paused"


def resumed(batch: str) -> str:
    """Return the key of the marker that exists once a batch that started paused was resumed."""
    return f"{BATCHES}{batch}/resumed"


def done_markers(batch: str) -> str:
    """Return the prefix of the markers of ended items."""
    return f"{BATCHES}{batch}/done/"


def done_marker(batch: str, page: int, row: int, state: JobState) -> str:
    """Return the key of the marker of an ended item; ``page`` is the page of the manifest that has the row."""
    return f"{done_markers_of_page(batch, page)}{row:08d}-{state}"


def done_markers_of_page(batch: str, page: int) -> str:
    """Return the prefix of the markers of ended items in one page of the manifest."""
    return f"{done_markers(batch)}{page:05d}/"


def read_done_marker(key: str) -> tuple[int, JobState]:
    """Return the row and the state that a done-marker's key says."""
    row, _, state = key.rpartition("/")[2].partition("-")
    return int(row), JobState(state)
