"""The items of a batch: pages of them, and their results as they come."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from itertools import islice

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from emx_gateway.schemas import BatchItem, BatchItems
from emx_shared.contracts.states import JobState
from emx_shared.ledger import Ledger
from emx_shared.ledger.batches.items import ended_items_of_page, rows_with_jobs
from emx_shared.ledger.batches.manifest_pages import item_id, manifest_rows
from emx_shared.ledger.records import ROWS_PER_PAGE, BatchRecord, JobRecord, Row

FOLLOW_EVERY = 1.0
"""Seconds between looks for results of a batch that is being followed."""

_LOOKED_AT = 10_000
"""Rows that are looked at for one page: where few of them match, it is short, and has a next one all the same."""


def item_page(ledger: Ledger, batch: BatchRecord, first: int, limit: int, state: JobState | None) -> BatchItems:
    """Return up to ``limit`` rows from ``first`` on; only those in one state, if one is given."""
    items: list[BatchItem] = []
    for item in islice(_items(ledger, batch, first), _LOOKED_AT):
        first = item.row + 1
        if state in (None, item.state):
            items.append(item)
        if len(items) == limit:
            break
    return BatchItems(items=items, next_row=first if first < batch.rows else None)


async def results(ledger: Ledger, batch: BatchRecord, follow: bool) -> AsyncIterator[str]:
    """Yield a line of NDJSON for each item that has ended; with ``follow``, until the batch has."""
    sent: dict[int, set[int]] = {}
    while True:
        over = not follow or await run_in_threadpool(ledger.outcome, batch.id) is not None
        async for line in iterate_in_threadpool(_new_results(ledger, batch, sent)):
            yield line
        if over:
            return
        await asyncio.sleep(FOLLOW_EVERY)


def _items(ledger: Ledger, batch: BatchRecord, first: int) -> Iterator[BatchItem]:
    rows = manifest_rows(ledger, batch, first)
    while some := list(islice(rows, ROWS_PER_PAGE - first % ROWS_PER_PAGE)):
        first = some[-1][0] + 1
        yield from _with_states(ledger, batch, some)


def _with_states(ledger: Ledger, batch: BatchRecord, rows: list[tuple[int, Row]]) -> Iterator[BatchItem]:
    """Yield the items of rows that are in one page of the manifest."""
    ended = ended_items_of_page(ledger, batch.id, rows[0][0] // ROWS_PER_PAGE)
    running = ledger.redis.leases.held_among([item_id(batch.id, n) for n, _ in rows if n not in ended])
    for number, row in rows:
        item = item_id(batch.id, number)
        state = ended.get(number) or (JobState.RUNNING if item in running else JobState.QUEUED)
        yield BatchItem(row=number, name=row.name, id=item, state=state)


def _new_results(ledger: Ledger, batch: BatchRecord, sent: dict[int, set[int]]) -> Iterator[str]:
    """Yield results that aren't in ``sent``, by page, yet. A page that was sent whole isn't looked at again."""
    for page in range(-(-len(rows_with_jobs(ledger, batch)) // ROWS_PER_PAGE)):
        known = sent.setdefault(page, set())
        if len(known) == ROWS_PER_PAGE:
            continue
        ended = ended_items_of_page(ledger, batch.id, page)
        for row in sorted(ended.keys() - known):
            if line := _result(ledger, batch.id, row):
                yield line
        known.update(ended)


def _result(ledger: Ledger, batch: str, row: int) -> str | None:
    """Return an item's line; None if there is no such item. Of an erased one its state is all that is left."""
    id = item_id(batch, row)
    record, outcome = ledger.record(id), ledger.outcome(id)
    if record is None or outcome is None:
        return None
    job = record if isinstance(record, JobRecord) else None
    result = {
        "row": row,
        "name": job.item.name if job and job.item else None,
        "id": id,
        "state": outcome.state,
        "metadata": job.metadata if job else {},
        "report": outcome.report.model_dump(mode="json") if outcome.report else None,
        "failure": outcome.failure.model_dump(mode="json") if outcome.failure else None,
    }
    return json.dumps(result, separators=(",", ":")) + "\n"
