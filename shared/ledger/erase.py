"""Erase: image and report go for good; that there was a job stays."""

from shared.ledger import keys
from shared.ledger.finish import cancel
from shared.ledger.ledger import Ledger
from shared.ledger.manifest import forget_row
from shared.ledger.records import Outcome, Request


def erase(ledger: Ledger, job: str) -> None:
    """Safe to repeat. No late report can come back, because the job's outcome is settled first."""
    store, request = ledger.store, ledger.request(job)
    if request and request.status == "committed":
        cancel(ledger, job)
    store.put(keys.erasing(job), b"{}")
    for entry in list(store.list(keys.inputs(job))):
        store.delete(entry.key)
    if request:
        for marker in keys.groups(request):
            store.delete(marker)
        ledger.index.unlist_job(request.tenant, job)
        forget_row(ledger, request)
        store.put(keys.request(job), _request_tombstone(request).dump())
    now = store.now()
    store.put(keys.outcome(job), Outcome(kind="erased", finished_at=now).dump())
    store.delete(keys.erasing(job))


def erase_group(ledger: Ledger, tenant: str, kind: str, name: str) -> int:
    """Erase all jobs of a study or a patient. Returns how many. Once it has begun, it is ended by anyone."""
    prefix = keys.group(tenant, kind, name)
    jobs = [entry.key.removeprefix(prefix) for entry in list(ledger.store.list(prefix))]
    for job in jobs:
        ledger.store.put(keys.erasing(job), b"{}")
    for job in jobs:
        erase(ledger, job)
        ledger.store.delete(prefix + job)  # of an abandoned job, nothing else names it
    return len(jobs)


def _request_tombstone(request: Request) -> Request:
    return Request(
        id=request.id,
        kind=request.kind,
        status="erased",
        tenant=request.tenant,
        submitted_at=request.submitted_at,
        batch=request.batch,
        row=request.row,
    )
