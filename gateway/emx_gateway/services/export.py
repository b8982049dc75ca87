"""All that is stored of a patient or a study, as one ZIP file that is made while it is sent."""

import io
import zipfile
from collections.abc import Iterator
from contextlib import suppress

from emx_shared.contracts.report import DISCLAIMER
from emx_shared.ledger import Ledger, object_keys
from emx_shared.ledger.batches.manifest_pages import readable_rows
from emx_shared.ledger.jobs.delivery import deliveries_of
from emx_shared.ledger.jobs.erasure import unread_rows
from emx_shared.ledger.records import UnreadableRecord
from emx_shared.store import NoSuchObject

_ENDINGS = {"image/png": "png", "image/jpeg": "jpg", "image/tiff": "tif", "application/dicom": "dcm"}
_README = f"""All that is stored: for each job its request, its outcome with the report, the image as it was
received, the feedback of readers, and the webhooks that were sent of it; and rows of batches that have no job yet.

{DISCLAIMER}
"""


class _Outgoing(io.RawIOBase):
    """What was written, until it is taken. It can't seek, so that ZipFile writes in one go."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, part: object) -> int:
        data = bytes(part)  # type: ignore[call-overload]
        self._parts.append(data)
        return len(data)

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


def export(ledger: Ledger, tenant: str, kind: str, name: str) -> Iterator[bytes]:
    """Yield the pieces of a ZIP file.

    Args:
        ledger: where all is stored.
        tenant: whose.
        kind: ``study`` or ``patient``.
        name: the client's name for it.
    """
    outgoing = _Outgoing()
    with zipfile.ZipFile(outgoing, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("README.txt", _README)
        prefix = object_keys.group(tenant, kind, name)
        for entry in list(ledger.store.list(prefix)):
            for path, data in _of_job(ledger, entry.key.removeprefix(prefix), entry.key):
                file.writestr(path, data)
                yield outgoing.take()
        for path, data in _of_batches(ledger, tenant, kind, name):
            file.writestr(path, data)
            yield outgoing.take()
    yield outgoing.take()


def _of_job(ledger: Ledger, id: str, marker: str) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the job that a group's marker names."""
    folder, job = f"jobs/{id}", ledger.if_readable(ledger.job, id)
    if job and marker not in object_keys.groups(job):  # of a submission that lost to another
        return
    for name, key in (
        ("request.json", object_keys.record(id)),
        ("outcome.json", object_keys.outcome(id)),
        ("feedback.json", object_keys.feedback(id)),
    ):
        try:
            yield f"{folder}/{name}", ledger.store.get(key)
        except NoSuchObject:
            continue
    if job is None:
        return
    with suppress(NoSuchObject):
        yield f"{folder}/input.{_ENDINGS.get(job.media_type, 'bin')}", ledger.input(job)
    with suppress(UnreadableRecord):
        for delivery in deliveries_of(ledger, job):
            yield f"{folder}/webhooks/{delivery.id}.json", delivery.dump()


def _of_batches(ledger: Ledger, tenant: str, kind: str, name: str) -> Iterator[tuple[str, bytes]]:
    for batch, numbers in unread_rows(ledger, tenant, kind, name):
        wanted = set(numbers)
        for number, row in readable_rows(ledger, batch):
            if number in wanted:
                yield f"batches/{batch.id}/row-{number}.json", row.model_dump_json().encode()
