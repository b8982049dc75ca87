"""Pages of a tenant's jobs, the newest first."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from redis.exceptions import RedisError

from emx_gateway.api.schemas import Job, JobList, job_resource
from emx_gateway.auth.authenticator import Caller
from emx_gateway.http.problems import Problem
from emx_gateway.services.service import Service
from emx_shared.ledger import Ledger, object_keys
from emx_shared.ledger.records import JobState, Priority, Request

LOOKED_AT = 500
"""Jobs that are looked at for one page: where few of them match, it is short, and has a cursor all the same."""


@dataclass(frozen=True)
class Filter:
    """None admits everything."""

    state: JobState | None = None
    priority: Priority | None = None
    study: str | None = None
    patient: str | None = None
    submitted_after: datetime | None = None
    submitted_before: datetime | None = None

    def admits(self, request: Request) -> bool:
        return (
            self.priority in (None, request.priority)
            and self.study in (None, request.study)
            and self.patient in (None, request.patient)
            and (self.submitted_after is None or request.submitted_at > _aware(self.submitted_after, request))
            and (self.submitted_before is None or request.submitted_at < _aware(self.submitted_before, request))
        )


def page(service: Service, caller: Caller, wanted: Filter, limit: int, cursor: str | None) -> JobList:
    """Raises Problem for a cursor that is none, and where Redis, which has the list, is away."""
    if cursor is not None and not is_place(cursor):
        raise Problem(400, "bad-cursor", "This cursor is none of ours: begin again without one.")
    ledger, items, next_cursor = service.ledger, list[Job](), None
    for looked_at, (job, place) in enumerate(_places(ledger, caller.tenant, wanted, cursor), start=1):
        request = ledger.request(job)
        if request and request.kind == "job" and request.status == "committed" and wanted.admits(request):
            found = job_resource(ledger, request, ledger.outcome(job))
            if wanted.state in (None, found.state):
                items.append(found.model_copy(update={"report": None}))
        if len(items) == limit or looked_at == LOOKED_AT:
            next_cursor = place
            break
    return JobList(items=items, next_cursor=next_cursor, complete=_is_complete(ledger, wanted))


def _places(ledger: Ledger, tenant: str, wanted: Filter, cursor: str | None) -> Iterator[tuple[str, str]]:
    """Ids of jobs with their places in the list, after a cursor."""
    for kind, name in (("study", wanted.study), ("patient", wanted.patient)):
        if name is not None:
            yield from _of_group(ledger, object_keys.group(tenant, kind, name), cursor)
            return
    while True:
        try:
            found = ledger.redis.listings.jobs(tenant, cursor, LOOKED_AT)
        except RedisError:
            detail = "The list of jobs is away for the moment; a single job can be asked for."
            raise Problem(503, "list-unavailable", detail, {"Retry-After": "5"}) from None
        yield from found
        if len(found) < LOOKED_AT:
            return
        cursor = found[-1][1]


def _of_group(ledger: Ledger, prefix: str, cursor: str | None) -> Iterator[tuple[str, str]]:
    """From the store's markers, which no loss of Redis touches."""
    places = []
    for entry in ledger.store.list(prefix):
        job = entry.key.removeprefix(prefix)
        if request := ledger.request(job):
            places.append((int(request.submitted_at.timestamp() * 1e6), job))
    after = None if cursor is None else (int(cursor.partition("-")[0]), cursor.partition("-")[2])
    for at, job in sorted(places, reverse=True):
        if after is None or (at, job) < after:
            yield job, f"{at}-{job}"


def _is_complete(ledger: Ledger, wanted: Filter) -> bool:
    return bool(wanted.study or wanted.patient) or ledger.redis.listings.is_complete()


def is_place(cursor: str) -> bool:
    """Whether a cursor may be one of ours."""
    at, dash, job = cursor.partition("-")
    return bool(dash) and at.isascii() and at.isdigit() and bool(job)


def _aware(moment: datetime, request: Request) -> datetime:
    """A time without zone is taken for UTC, as the store's are."""
    return moment if moment.tzinfo else moment.replace(tzinfo=request.submitted_at.tzinfo)
