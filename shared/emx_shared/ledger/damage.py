"""What can still be told of a record that can't be read: enough to erase all of it, and for nothing else."""

import json
from datetime import datetime
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from emx_shared.ledger import object_keys
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import FORMAT, ROWS_PER_PAGE, BatchRecord, JobRecord, UnreadableRecord, read_record
from emx_shared.store import NoSuchObject

R = TypeVar("R", JobRecord, BatchRecord)


def is_newer(data: bytes) -> bool:
    """Return whether a record says a format that is newer than this version's."""
    try:
        format = json.loads(data)["format"]
        return tuple(map(int, format.split("."))) > tuple(map(int, FORMAT.split(".")))
    except (ValueError, TypeError, KeyError, AttributeError):
        return False


def damaged_job(ledger: Ledger, id: str, at: datetime, tenant: str = "default") -> JobRecord | None:
    """Return what can be told of a job whose record can't be read; None if it can, or there is none.

    ``at`` and ``tenant`` are taken where the record doesn't say when it was submitted and whose it is.
    """
    fields = _unreadable_fields(ledger, id, other="batch")
    if fields is None:
        return None
    return _salvage(JobRecord, {**fields, "id": id}, {"submitted_at": at, "tenant": tenant})


def damaged_batch(ledger: Ledger, id: str, at: datetime, tenant: str = "default") -> BatchRecord | None:
    """Return what can be told of a batch as ``damaged_job`` does; what its record doesn't say, its files do.

    ``rows`` may be up to a page too many.
    """
    fields = _unreadable_fields(ledger, id, other="job")
    if fields is None:
        return None
    prefix, pages, nonces = object_keys.submissions(id), 0, [""]
    for entry in ledger.store.list(prefix):
        nonce, _, name = entry.key.removeprefix(prefix).partition("/")
        if name.startswith("manifest-"):
            nonces.append(nonce)
            pages = max(pages, 1 + int(name.removeprefix("manifest-").partition(".")[0]))
    told = {"submitted_at": at, "tenant": tenant, "rows": pages * ROWS_PER_PAGE, "nonce": nonces[-1]}
    return _salvage(BatchRecord, {**fields, "id": id}, told)


def _unreadable_fields(ledger: Ledger, id: str, other: str) -> dict[str, object] | None:
    """Return the fields of a record that can't be read, unless it says that it is of the other kind."""
    try:
        data = ledger.store.get(object_keys.record(id))
        read_record(data)
    except NoSuchObject:
        return None
    except UnreadableRecord:
        fields = _fields(data)
        return fields if fields.pop("kind", None) != other else None
    return None


def _fields(data: bytes) -> dict[str, object]:
    """Return the fields that were written to their end, of a JSON object that may be cut."""
    try:
        found = from_json(data, allow_partial=True)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _salvage(kind: type[R], fields: dict[str, object], told: dict[str, object]) -> R:
    """Make a record of the fields that are valid; ``told`` has those that it can't do without."""
    while True:
        try:
            return kind.model_validate({**told, **fields})
        except ValidationError as error:
            for name in {str(each["loc"][0]) for each in error.errors()}:
                del fields[name]
