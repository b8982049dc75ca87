"""The results of a batch as they come, one line of NDJSON each, from any place on."""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from emx_gateway.http.problems import Problem
from emx_gateway.schemas import BatchResult
from emx_shared.contracts.states import JobState
from emx_shared.ledger import Ledger
from emx_shared.ledger.batches.items import ends_of_page, rows_with_jobs
from emx_shared.ledger.batches.manifest_pages import item_id, manifest_rows
from emx_shared.ledger.records import ROWS_PER_PAGE, BatchRecord, Failure, JobRecord, Outcome, UnreadableRecord

FOLLOW_EVERY = 1.0
"""Seconds between looks for results of a batch that is being followed."""

HEARTBEAT_EVERY = 15.0
"""Seconds of silence after which an empty line shows that the connection lives."""

_OVERLAP = timedelta(seconds=10)
"""Before a cursor: writers are no clockwork, so a result may become visible after one of a later time."""

_CURSOR = re.compile(r"(\d{1,17})-(\d{1,9})")


@dataclass(frozen=True)
class ResultCursor:
    """The place of a result among the others, which are ordered by the time of their end."""

    at: datetime
    row: int

    @classmethod
    def parse(cls, text: str) -> "ResultCursor":
        """Read a line's ``cursor``. Raises Problem 400."""
        found = _CURSOR.fullmatch(text)
        if not found:
            raise Problem(400, "bad-cursor", "Invalid cursor. Omit `after` to start with the first result.")
        return cls(datetime.fromtimestamp(int(found[1]) / 1e6, UTC), int(found[2]))

    def __str__(self) -> str:
        return f"{round(self.at.timestamp() * 1e6)}-{self.row}"


@dataclass
class _Results:
    """The results of one batch, each sent once.

    Attributes:
        after: only later results, and those of a few seconds before.
        known: by page of the manifest, the rows that were sent or are left out.
        waits: whether items of a batch that was cancelled have yet to be cancelled.
    """

    ledger: Ledger
    batch: BatchRecord
    after: ResultCursor | None
    known: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    waits: bool = False

    def new(self, outcome: Outcome | None) -> Iterator[str]:
        """Yield a line for each result that is new, in the order of their ends."""
        ends = sorted(
            (at, row, state) for page in self._pages() for row, (at, state) in self._new_of_page(page).items()
        )
        for at, row, state in ends:
            self.known[row // ROWS_PER_PAGE].add(row)
            if self._is_wanted(at) and (found := self._result(at, row, state)):
                yield _line(found)
        if outcome and outcome.state == JobState.CANCELLED:
            yield from self._never_submitted(outcome)

    def _pages(self) -> range:
        return range(-(-len(rows_with_jobs(self.ledger, self.batch)) // ROWS_PER_PAGE))

    def _new_of_page(self, page: int) -> dict[int, tuple[datetime, JobState]]:
        """Return when rows of a page ended that are new. A page that was sent whole isn't looked at again."""
        known = self.known[page]
        if len(known) == ROWS_PER_PAGE:
            return {}
        ends = ends_of_page(self.ledger, self.batch.id, page)
        return {row: end for row, end in ends.items() if row not in known}

    def _is_wanted(self, at: datetime) -> bool:
        return self.after is None or at > self.after.at - _OVERLAP

    def _result(self, at: datetime, row: int, state: JobState) -> BatchResult | None:
        """Return an item's result; None if there is no such item. Of an erased item only the state is left."""
        id, cursor = item_id(self.batch.id, row), str(ResultCursor(at, row))
        try:
            record, outcome = self.ledger.record(id), self.ledger.outcome(id)
        except UnreadableRecord as error:
            failure = Failure(code="unreadable", message=str(error))
            return BatchResult(row=row, id=id, state=state, failure=failure, cursor=cursor)
        if record is None or outcome is None:
            return None
        job = record if isinstance(record, JobRecord) else None
        return BatchResult(
            row=row,
            name=job.item.name if job and job.item else None,
            id=id,
            state=outcome.state,
            metadata=job.metadata if job else {},
            report=outcome.report,
            failure=outcome.failure,
            cursor=cursor,
        )

    def _never_submitted(self, outcome: Outcome) -> Iterator[str]:
        """Yield the rows of a cancelled batch that have no job."""
        self.waits = False
        with_jobs = rows_with_jobs(self.ledger, self.batch)
        for number, row in manifest_rows(self.ledger, self.batch):
            known, id = self.known[number // ROWS_PER_PAGE], item_id(self.batch.id, number)
            if number in known:
                continue
            job = self.ledger.if_readable(self.ledger.job, id) if number in with_jobs else None
            if job:
                self.waits = True
                continue
            known.add(number)
            if self._is_wanted(outcome.finished_at):
                cursor = str(ResultCursor(outcome.finished_at, number))
                yield _line(
                    BatchResult(
                        row=number,
                        name=row.name,
                        id=id,
                        state=JobState.CANCELLED,
                        metadata=row.metadata,
                        cursor=cursor,
                    )
                )


async def batch_results(
    ledger: Ledger, batch: BatchRecord, follow: bool, after: ResultCursor | None
) -> AsyncIterator[str]:
    """Yield a line of NDJSON for each item that has ended; with ``follow``, until the batch has.

    Args:
        ledger: where they are.
        batch: which.
        follow: whether to wait for the others; an empty line now and then shows that the connection lives.
        after: the place of the last result that the client has; those of a few seconds before it come again.
    """
    results, silent = _Results(ledger, batch, after), 0.0
    while True:
        outcome = await run_in_threadpool(ledger.outcome, batch.id)
        async for line in iterate_in_threadpool(results.new(outcome)):
            silent = 0.0
            yield line
        if not follow or (outcome and not results.waits):
            return
        await asyncio.sleep(FOLLOW_EVERY)
        silent += FOLLOW_EVERY
        if silent >= HEARTBEAT_EVERY:
            silent = 0.0
            yield "\n"


def _line(result: BatchResult) -> str:
    return result.model_dump_json() + "\n"
