"""The items of a batch, page by page."""

from collections.abc import Iterator
from itertools import islice

from emx_gateway.schemas import BatchItem, BatchItems
from emx_shared.contracts.states import JobState
from emx_shared.ledger import Ledger
from emx_shared.ledger.batches.items import ended_items_of_page
from emx_shared.ledger.batches.manifest_pages import item_id, manifest_rows
from emx_shared.ledger.records import ROWS_PER_PAGE, BatchRecord, Outcome, Row

_LOOKED_AT = 10_000
"""Rows that are looked at for one page: where few of them match, it is short, and has a next one all the same."""


def item_page(
    ledger: Ledger, batch: BatchRecord, outcome: Outcome | None, first: int, limit: int, state: JobState | None
) -> BatchItems:
    """Return up to ``limit`` rows from ``first`` on; only those in one state, if one is given."""
    items: list[BatchItem] = []
    for item in islice(_items(ledger, batch, outcome, first), _LOOKED_AT):
        first = item.row + 1
        if state in (None, item.state):
            items.append(item)
        if len(items) == limit:
            break
    return BatchItems(items=items, next_row=first if first < batch.rows else None)


def _items(ledger: Ledger, batch: BatchRecord, outcome: Outcome | None, first: int) -> Iterator[BatchItem]:
    rows = manifest_rows(ledger, batch, first)
    while some := list(islice(rows, ROWS_PER_PAGE - first % ROWS_PER_PAGE)):
        first = some[-1][0] + 1
        yield from _with_states(ledger, batch, outcome, some)


def _with_states(
    ledger: Ledger, batch: BatchRecord, outcome: Outcome | None, rows: list[tuple[int, Row]]
) -> Iterator[BatchItem]:
    """Yield the items of rows that are in one page of the manifest, with the states that the batch counts."""
    ended = ended_items_of_page(ledger, batch.id, rows[0][0] // ROWS_PER_PAGE)
    cancelled = outcome is not None and outcome.state == JobState.CANCELLED
    open_items = [] if cancelled else [item_id(batch.id, n) for n, _ in rows if n not in ended]
    running = ledger.redis.leases.held_among(open_items)
    for number, row in rows:
        item = item_id(batch.id, number)
        unended = JobState.RUNNING if item in running else JobState.QUEUED
        state = ended.get(number) or (JobState.CANCELLED if cancelled else unended)
        yield BatchItem(row=number, name=row.name, id=item, state=state)
