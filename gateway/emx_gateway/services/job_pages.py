"""Pages of a tenant's jobs, the newest first."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from redis.exceptions import RedisError

from emx_gateway.http.problems import Problem
from emx_gateway.schemas import Job, JobList
from emx_gateway.services.representations import job_resource
from emx_shared.contracts.states import JobState
from emx_shared.ledger import Ledger, object_keys
from emx_shared.ledger.records import JobRecord, Priority, UnreadableRecord

LOOKED_AT = 500
"""Jobs that are looked at for one page: where few of them match, it is short, and has a cursor all the same."""


@dataclass(frozen=True)
class JobQuery:
    """Which jobs are listed; None admits every job."""

    state: JobState | None = None
    priority: Priority | None = None
    study: str | None = None
    patient: str | None = None
    submitted_after: datetime | None = None
    submitted_before: datetime | None = None

    def admits(self, job: JobRecord) -> bool:
        """Return whether a job matches, its state aside."""
        return (
            self.priority in (None, job.priority)
            and self.study in (None, job.study)
            and self.patient in (None, job.patient)
            and (self.submitted_after is None or job.submitted_at > self.submitted_after)
            and (self.submitted_before is None or job.submitted_at < self.submitted_before)
        )


def job_page(ledger: Ledger, tenant: str, wanted: JobQuery, limit: int, cursor: str | None) -> JobList:
    """Return a page of jobs without their reports.

    Args:
        ledger: where they are.
        tenant: whose they are.
        wanted: which.
        limit: most jobs of the page.
        cursor: ``next_cursor`` of the page before; None for the first page.

    Raises:
        Problem: 400 for an invalid cursor; 503 while Redis, which has the list, is unavailable.
    """
    check_cursor(cursor)
    items, unreadable, next_cursor = list[Job](), list[str](), None
    for looked_at, (id, place) in enumerate(_places(ledger, tenant, wanted, cursor), start=1):
        try:
            if found := _matching(ledger, id, wanted):
                items.append(found)
        except UnreadableRecord:
            unreadable.append(id)
        if len(items) == limit or looked_at == LOOKED_AT:
            next_cursor = place
            break
    complete = _is_complete(ledger, wanted)
    return JobList(items=items, unreadable=unreadable, next_cursor=next_cursor, complete=complete)


def _matching(ledger: Ledger, id: str, wanted: JobQuery) -> Job | None:
    """Return a job without its report, if it is one that is wanted."""
    job = ledger.job(id)
    if job is None or not wanted.admits(job):
        return None
    found = job_resource(ledger, job, ledger.outcome(id))
    return found.model_copy(update={"report": None}) if wanted.state in (None, found.state) else None


def check_cursor(cursor: str | None) -> None:
    """Raise Problem 400 for a cursor that no page gave."""
    if cursor is None:
        return
    at, dash, id = cursor.partition("-")
    if not (dash and at.isascii() and at.isdigit() and id):
        raise Problem(400, "bad-cursor", "Invalid cursor. Omit `cursor` to start at the first page.")


def _places(ledger: Ledger, tenant: str, wanted: JobQuery, cursor: str | None) -> Iterator[tuple[str, str]]:
    """Yield ids of jobs with their places in the list, after a cursor."""
    for kind, name in (("study", wanted.study), ("patient", wanted.patient)):
        if name is not None:
            yield from _places_of_group(ledger, object_keys.group(tenant, kind, name), cursor)
            return
    while True:
        try:
            found = ledger.redis.listings.jobs(tenant, cursor, LOOKED_AT, wanted.state)
        except RedisError:
            detail = "The list of jobs is unavailable for the moment; single jobs can be fetched."
            raise Problem(503, "list-unavailable", detail, {"Retry-After": "5"}) from None
        yield from found
        if len(found) < LOOKED_AT:
            return
        cursor = found[-1][1]


def _places_of_group(ledger: Ledger, prefix: str, cursor: str | None) -> Iterator[tuple[str, str]]:
    """Yield the places of a study's or a patient's jobs, from the store's markers: Redis may lose its own."""
    places = []
    for entry in ledger.store.list(prefix):
        id = entry.key.removeprefix(prefix)
        try:
            if record := ledger.record(id):
                places.append((int(record.submitted_at.timestamp() * 1e6), id))
        except UnreadableRecord:
            places.append((0, id))
    after = None if cursor is None else (int(cursor.partition("-")[0]), cursor.partition("-")[2])
    for at, id in sorted(places, reverse=True):
        if after is None or (at, id) < after:
            yield id, f"{at}-{id}"


def _is_complete(ledger: Ledger, wanted: JobQuery) -> bool:
    return bool(wanted.study or wanted.patient) or ledger.redis.listings.is_complete()
