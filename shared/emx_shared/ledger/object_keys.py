"""Where each object of the ledger lies in the store."""

import hashlib
from collections.abc import Iterator

from emx_shared.ledger.records import Request

JOBS = "jobs/"
DELIVERIES = "deliveries/"
UPLOADS = "uploads/"
OPEN = "open/"
OUTBOX = "outbox/"
ERASE = "erase/"
UNREAD = "unread/"


def open_marker(job: str) -> str:
    return f"{OPEN}{job}"


def request(job: str) -> str:
    return f"{JOBS}{job}/request.json"


def job_of_request(key: str) -> str | None:
    """The job whose request this is, if it is one."""
    job, _, name = key.removeprefix(JOBS).partition("/")
    return job if name == "request.json" else None


def outcome(job: str) -> str:
    return f"{JOBS}{job}/outcome.json"


def inputs(job: str) -> str:
    """Prefix of the bytes as received; the request names the one that counts."""
    return f"{JOBS}{job}/input-"


def job_input(job: str, sha256: str) -> str:
    return f"{inputs(job)}{sha256}"


def outbox(delivery: str) -> str:
    return f"{OUTBOX}{delivery}"


def delivery(delivery: str) -> str:
    return f"{DELIVERIES}{delivery}"


def erasing(job: str) -> str:
    return f"{ERASE}{job}"


def groups(request: Request) -> Iterator[str]:
    """The markers by which a job is found again by its study and its patient."""
    for kind, name in (("study", request.study), ("patient", request.patient)):
        if name is not None:
            yield f"{group(request.tenant, kind, name)}{request.id}"


def group(tenant: str, kind: str, name: str) -> str:
    """Prefix of a group's markers. The client's name, which may be of any length, is hashed."""
    return f"groups/{tenant}/{kind}/{hashlib.sha256(name.encode()).hexdigest()}/"


def upload(tenant: str, id: str) -> str:
    return f"{UPLOADS}{tenant}/{id}"


def imported(tenant: str, path: str) -> str:
    """What an operator put into the store for a tenant's batches."""
    return f"imports/{tenant}/{path}"


def batch(batch: str) -> str:
    """Prefix of all that belongs to a batch, but its request and its outcome."""
    return f"batches/{batch}/"


def submissions(batch: str) -> str:
    return f"batches/{batch}/of-"


def submission(batch: str, nonce: str) -> str:
    """Prefix of what one submission brought: of several with one idempotency key, one counts."""
    return f"{submissions(batch)}{nonce}/"


def pages(batch: str, nonce: str) -> str:
    return f"{submission(batch, nonce)}manifest-"


def page(batch: str, nonce: str, number: int) -> str:
    """A part of the manifest."""
    return f"{pages(batch, nonce)}{number:05d}.json"


def batch_input(batch: str, nonce: str, sha256: str) -> str:
    """An image that came along."""
    return f"{submission(batch, nonce)}input-{sha256}"


def cursor(batch: str) -> str:
    """How many rows were submitted at least."""
    return f"batches/{batch}/cursor"


def unread_batches(tenant: str) -> str:
    return f"{UNREAD}{tenant}/"


def unread_batch(tenant: str, batch: str) -> str:
    """There while the manifest may have rows that no job was made of, and that only the manifest names."""
    return f"{unread_batches(tenant)}{batch}"


def paused(batch: str) -> str:
    """There while the batch rests."""
    return f"batches/{batch}/paused"


def done_markers(batch: str) -> str:
    return f"batches/{batch}/done/"


def done_marker(batch: str, page: int, row: int, state: str) -> str:
    """``page``: the page of the manifest that has the row."""
    return f"{done_markers_of_page(batch, page)}{row:08d}-{state}"


def done_markers_of_page(batch: str, page: int) -> str:
    return f"{done_markers(batch)}{page:05d}/"


def read_done_marker(key: str) -> tuple[int, str]:
    """Row and state."""
    row, _, state = key.rpartition("/")[2].partition("-")
    return int(row), state
