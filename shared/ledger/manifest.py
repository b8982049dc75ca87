"""The manifest of a batch, in pages."""

import time
import uuid
from collections.abc import Iterator

from shared.ledger import keys
from shared.ledger.ledger import Ledger
from shared.ledger.records import Page, Request, Row
from shared.store import StoreError

PAGE = 500
"""Rows that lie in one object."""

ERASED = Row(image="erased:")
"""What stands in the place of a row whose job was erased."""

_TRIES = 50
_PAUSE = 0.1


def manifest(ledger: Ledger, request: Request, first: int = 0) -> Iterator[tuple[int, Row]]:
    """The rows of a batch from this one on, with their numbers."""
    for number in range(first // PAGE, -(-(request.rows or 0) // PAGE)):
        page = Page.model_validate_json(ledger.store.get(keys.page(request.id, number)))
        for place, row in enumerate(page.rows, start=number * PAGE):
            if place >= first:
                yield place, row


def forget_row(ledger: Ledger, item: Request) -> None:
    """Take what the manifest says of an erased item out of it. Raises StoreError, RedisError: try again later."""
    if item.batch is None or item.row is None:
        return
    number, place = divmod(item.row, PAGE)
    key, lease, token = keys.page(item.batch, number), f"page:{item.batch}:{number}", uuid.uuid4().hex
    for _ in range(_TRIES):  # two at once would each bring back the other's row
        if ledger.index.take_lease(lease, token):
            break
        time.sleep(_PAUSE)
    else:
        raise StoreError("a batch's manifest is being changed by others")
    try:
        rows = Page.model_validate_json(ledger.store.get(key)).rows
        ledger.store.put(key, Page(rows=(*rows[:place], ERASED, *rows[place + 1 :])).dump())
    finally:
        ledger.index.release_lease(lease, token)
