"""Pages of a tenant's jobs, the newest first."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice

from redis.exceptions import RedisError

from emx_gateway.http.problems import Problem
from emx_gateway.schemas import JobList, ListedJob
from emx_gateway.services.feedback import feedback_summary
from emx_gateway.services.representations import job_resource, job_summary
from emx_shared.contracts.report import Report
from emx_shared.contracts.states import JobState
from emx_shared.fair_threads import FairThreads
from emx_shared.ledger import Ledger, object_keys
from emx_shared.ledger.records import JobRecord, Priority, UnreadableRecord

LOOKED_AT = 500
"""Jobs that are looked at for one page: where few of them match, it is short, and has a cursor all the same."""
_AHEAD = 8
"""Jobs of a page that are read at a time: over a network, one after the other takes seconds for hundreds."""
NO_FINDING = "none"
"""Stands for reports without findings where a finding's code is asked for."""


@dataclass(frozen=True)
class JobQuery:
    """Which jobs are listed; None admits every job."""

    state: JobState | None = None
    priority: Priority | None = None
    study: str | None = None
    patient: str | None = None
    submitted_after: datetime | None = None
    submitted_before: datetime | None = None
    finding: str | None = None

    @property
    def listed_as(self) -> JobState | None:
        """The state in whose list the jobs are; None if they may be in any."""
        return JobState.SUCCEEDED if self.finding and self.state is None else self.state

    def admits(self, job: JobRecord) -> bool:
        """Return whether a job matches, its state aside."""
        return (
            self.priority in (None, job.priority)
            and self.study in (None, job.study)
            and self.patient in (None, job.patient)
            and (self.submitted_after is None or job.submitted_at > self.submitted_after)
            and (self.submitted_before is None or job.submitted_at < self.submitted_before)
        )

    def admits_report(self, report: Report | None) -> bool:
        """Return whether a job's report has the finding. One of a model that abstained says nothing of any."""
        if self.finding is None or report is None:
            return self.finding is None
        if self.finding == NO_FINDING:
            return not report.locations and not report.abstained
        return any(place.code == self.finding for place in report.locations)


def job_page(
    ledger: Ledger,
    readers: FairThreads,
    tenant: str,
    wanted: JobQuery,
    limit: int,
    cursor: str | None,
    summarised: bool = False,
) -> JobList:
    """Return a page of jobs without their reports.

    Args:
        ledger: where they are.
        readers: the threads that read them.
        tenant: whose they are.
        wanted: which.
        limit: most jobs of the page.
        cursor: ``next_cursor`` of the page before; None for the first page.
        summarised: whether each job has its report and its newest feedback in brief.

    Raises:
        Problem: 400 for an invalid cursor; 503 while Redis, which has the list, is unavailable.
    """
    check_cursor(cursor)
    items, unreadable, next_cursor = list[ListedJob](), list[str](), None
    places = islice(_places(ledger, tenant, wanted, cursor), LOOKED_AT)

    def read(id: str) -> "Future[ListedJob | None]":
        return readers.submit(tenant, partial(_matching, ledger, id, wanted, summarised), "jobs")

    with closing(_read_ahead(places, read, lambda: limit - len(items))) as being_read:
        for looked_at, (id, place, job) in enumerate(being_read, start=1):
            try:
                if found := job.result():
                    items.append(found)
            except UnreadableRecord:
                unreadable.append(id)
            if len(items) == limit or looked_at == LOOKED_AT:
                next_cursor = place
                break
    complete = _is_complete(ledger, wanted)
    return JobList(items=items, unreadable=unreadable, next_cursor=next_cursor, complete=complete)


def _read_ahead(
    places: Iterator[tuple[str, str]],
    read: Callable[[str], "Future[ListedJob | None]"],
    missing: Callable[[], int],
) -> Generator[tuple[str, str, "Future[ListedJob | None]"], None, None]:
    """Yield places with what is read of their jobs, in order, while the next ones are being read.

    Args:
        places: ids and places in the list.
        read: begins to read a job.
        missing: how many jobs the page still lacks; no more are read ahead.
    """
    ahead: deque[tuple[str, str, Future[ListedJob | None]]] = deque()
    try:
        for id, place in places:
            ahead.append((id, place, read(id)))
            while ahead and len(ahead) >= min(_AHEAD, missing()):
                yield ahead.popleft()
        while ahead:
            yield ahead.popleft()
    finally:
        for _, _, job in ahead:
            job.cancel()


def _matching(ledger: Ledger, id: str, wanted: JobQuery, summarised: bool) -> ListedJob | None:
    """Return a job without its report, if it is one that is wanted."""
    job = ledger.job(id)
    if job is None or not wanted.admits(job):
        return None
    found = job_resource(ledger, job, ledger.outcome(id))
    report = found.report
    if wanted.state not in (None, found.state) or not wanted.admits_report(report):
        return None
    if not summarised or report is None:
        return ListedJob(**{**vars(found), "report": None})
    more = {"report": None, "feedback": feedback_summary(ledger, id)}
    return ListedJob(**{**vars(found), **more}, summary=job_summary(report))


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
            found = ledger.redis.listings.jobs(tenant, cursor, LOOKED_AT, wanted.listed_as)
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
