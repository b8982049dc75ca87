"""Where each object of the ledger lies in the store."""

OPEN = "open/"
OUTBOX = "outbox/"
ERASE = "erase/"


def open_marker(job: str) -> str:
    return f"{OPEN}{job}"


def request(job: str) -> str:
    return f"jobs/{job}/request.json"


def outcome(job: str) -> str:
    return f"jobs/{job}/outcome.json"


def inputs(job: str) -> str:
    """Prefix of the bytes as received; the request names the one that counts."""
    return f"jobs/{job}/input-"


def job_input(job: str, sha256: str) -> str:
    return f"{inputs(job)}{sha256}"


def outbox(delivery: str) -> str:
    return f"{OUTBOX}{delivery}"


def delivery(delivery: str) -> str:
    return f"deliveries/{delivery}"


def erasing(job: str) -> str:
    return f"{ERASE}{job}"


def manifest(batch: str) -> str:
    return f"batches/{batch}/manifest.json"


def batch_inputs(batch: str) -> str:
    return f"batches/{batch}/input-"


def batch_input(batch: str, sha256: str) -> str:
    return f"{batch_inputs(batch)}{sha256}"


def done_markers(batch: str) -> str:
    return f"batches/{batch}/done/"


def done_marker(batch: str, row: int) -> str:
    return f"{done_markers(batch)}{row:08d}"
