"""Retention: images and reports go when they are as old as the operator lets them become."""

from datetime import datetime, timedelta

from emx_shared.ledger import object_keys
from emx_shared.ledger.jobs.erasure import erase
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import UnreadableRecord

_PER_ROUND = 500
"""Jobs of a tenant that one round looks at."""


def apply_retention(ledger: Ledger) -> None:
    """Erase what is older than EMX_RETENTION_REPORTS, and the images older than EMX_RETENTION_INPUTS.

    Age counts from the submission; what hasn't ended stays. Each round goes through some jobs, oldest first,
    as far as Redis lists them. Raises StoreError, RedisError.
    """
    settings, now = ledger.settings, ledger.now()
    if (settings.retention_reports is None and settings.retention_inputs is None) or ledger.store.clock_fault():
        return
    for tenant in ledger.redis.listings.tenants():
        if settings.retention_reports is not None:
            until = now - timedelta(seconds=settings.retention_reports)
            for id, _ in ledger.redis.listings.oldest_jobs(tenant, None, until, _PER_ROUND):
                _erase_ended(ledger, id)
        if settings.retention_inputs is not None:
            _drop_inputs(ledger, tenant, now - timedelta(seconds=settings.retention_inputs))


def _erase_ended(ledger: Ledger, id: str) -> None:
    """Erase a job that has ended, also one that was erased before and is still listed, or can't be read."""
    try:
        ended = ledger.outcome(id) is not None
    except UnreadableRecord:
        ended = True
    if ended:
        erase(ledger, id)


def _drop_inputs(ledger: Ledger, tenant: str, until: datetime) -> None:
    """Delete images, from where the last round stopped."""
    listings = ledger.redis.listings
    for id, at in listings.oldest_jobs(tenant, listings.inputs_dropped_until(tenant), until, _PER_ROUND):
        try:
            job = ledger.job(id)
            if job and ledger.outcome(id) is None:
                return  # it is still to be read; those after it wait for it
        except UnreadableRecord:
            job = None
        if job:
            ledger.store.delete_below(object_keys.inputs(id))
        listings.note_inputs_dropped(tenant, at)
