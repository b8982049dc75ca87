"""The items of a batch: pages of them, and their results as they come."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from itertools import islice

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from emx_gateway.api.schemas import BatchItem, BatchItems
from emx_shared.ledger import Ledger
from emx_shared.ledger.batches.items import begun, ended_items_of_page
from emx_shared.ledger.batches.manifest_pages import item_id, manifest
from emx_shared.ledger.records import PAGE, JobState, Request, Row

FOLLOW_EVERY = 1.0
"""Seconds between looks for results of a batch that is being followed."""

_LOOKED_AT = 10_000
"""Rows that are looked at for one page: where few of them match, it is short, and has a next one all the same."""


def item_page(ledger: Ledger, batch: Request, first: int, limit: int, state: JobState | None) -> BatchItems:
    """Rows from ``first`` on, those in one state if so wanted."""
    items: list[BatchItem] = []
    for item in islice(_items(ledger, batch, first), _LOOKED_AT):
        first = item.row + 1
        if state in (None, item.state):
            items.append(item)
        if len(items) == limit:
            break
    return BatchItems(items=items, next_row=first if first < (batch.rows or 0) else None)


async def results(ledger: Ledger, batch: Request, follow: bool) -> AsyncIterator[str]:
    """A line for each item that has ended; ``follow``: until the batch has."""
    told: dict[int, set[int]] = {}
    while True:
        over = not follow or await run_in_threadpool(ledger.outcome, batch.id) is not None
        async for line in iterate_in_threadpool(_new_results(ledger, batch, told)):
            yield line
        if over:
            return
        await asyncio.sleep(FOLLOW_EVERY)


def _items(ledger: Ledger, batch: Request, first: int) -> Iterator[BatchItem]:
    rows = manifest(ledger, batch, first)
    while some := list(islice(rows, PAGE - first % PAGE)):
        first = some[-1][0] + 1
        yield from _with_states(ledger, batch, some)


def _with_states(ledger: Ledger, batch: Request, rows: list[tuple[int, Row]]) -> Iterator[BatchItem]:
    """Of rows that lie in one page of the manifest."""
    ended = ended_items_of_page(ledger, batch.id, rows[0][0] // PAGE)
    running = ledger.redis.leases.held_among([item_id(batch.id, n) for n, _ in rows if n not in ended])
    for number, row in rows:
        item = item_id(batch.id, number)
        now = ended.get(number) or (JobState.RUNNING if item in running else JobState.QUEUED)
        yield BatchItem(row=number, name=row.name, id=item, state=JobState(now))


def _new_results(ledger: Ledger, batch: Request, told: dict[int, set[int]]) -> Iterator[str]:
    """Those that ``told``, by page, doesn't have yet. A page that was told whole isn't looked at again."""
    for page in range(-(-len(begun(ledger, batch)) // PAGE)):
        known = told.setdefault(page, set())
        if len(known) == PAGE:
            continue
        ended = ended_items_of_page(ledger, batch.id, page)
        for row in sorted(ended.keys() - known):
            yield from _result(ledger, batch.id, row)
        known |= ended.keys()


def _result(ledger: Ledger, batch: str, row: int) -> Iterator[str]:
    """One line, or none where its job is not to be found."""
    job = item_id(batch, row)
    request, outcome = ledger.request(job), ledger.outcome(job)
    if request and outcome:
        result = {
            "row": row,
            "name": request.name,
            "id": job,
            "state": outcome.state,
            "metadata": request.metadata,
            "report": outcome.report.model_dump(mode="json") if outcome.report else None,
            "failure": outcome.failure.model_dump(mode="json") if outcome.failure else None,
        }
        yield json.dumps(result, separators=(",", ":")) + "\n"
