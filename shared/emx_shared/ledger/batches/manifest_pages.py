"""The manifest of a batch, in pages."""

import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice

from emx_shared.ledger import object_keys
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import PAGE, Page, Request, Row
from emx_shared.store import NotFound, StoreError

ERASED = Row(image="erased:")
"""What stands in the place of a row whose job was erased."""

_ITEMS = uuid.UUID("8f1d2b9e-6b0c-5ad4-9d0a-7a9d6c1f4b52")
_TRIES = 50
_PAUSE = 0.1


def item_id(batch: str, row: int) -> str:
    """The job of a row, whether it is there yet or not."""
    return str(uuid.uuid5(_ITEMS, f"{batch}\n{row}"))


def write_manifest(ledger: Ledger, batch: str, nonce: str, rows: Iterable[Row]) -> int:
    """Returns how many rows there were. They are read one by one."""
    count, unread = 0, iter(rows)
    while page := tuple(islice(unread, PAGE)):
        ledger.store.put(object_keys.page(batch, nonce, count // PAGE), Page(rows=page).dump())
        count += len(page)
    return count


def manifest(ledger: Ledger, request: Request, first: int = 0) -> Iterator[tuple[int, Row]]:
    """The rows of a batch from this one on, with their numbers."""
    for number in range(first // PAGE, -(-(request.rows or 0) // PAGE)):
        for place, row in enumerate(_page(ledger, request, number), start=number * PAGE):
            if place >= first:
                yield place, row


def drop_others(ledger: Ledger, request: Request) -> None:
    """Take away what other submissions with the batch's idempotency key brought, which don't count."""
    for entry in list(ledger.store.list(object_keys.submissions(request.id))):
        if not entry.key.startswith(object_keys.submission(request.id, request.nonce)):
            ledger.store.delete(entry.key)


def forget_rows(ledger: Ledger, request: Request, rows: Iterable[int]) -> None:
    """Take what the manifest says of erased items out of it, and the images that only it names.

    Raises StoreError, RedisError: try again later.
    """
    of_page: dict[int, set[int]] = defaultdict(set)
    for row in rows:
        of_page[row // PAGE].add(row % PAGE)
    for number, places in of_page.items():
        _forget(ledger, request, number, places)


def _page(ledger: Ledger, request: Request, number: int) -> tuple[Row, ...]:
    return Page.model_validate_json(ledger.store.get(object_keys.page(request.id, request.nonce, number))).rows


def _forget(ledger: Ledger, request: Request, number: int, places: set[int]) -> None:
    """Images go first: once the row is gone, nothing names them."""
    lease, token = f"page:{request.id}:{number}", uuid.uuid4().hex
    for _ in range(_TRIES):  # two at once would each bring back the other's row
        if ledger.redis.leases.take(lease, token):
            break
        time.sleep(_PAUSE)
    else:
        raise StoreError("a batch's manifest is being changed by others")
    try:
        rows = _page(ledger, request, number)
        forgotten = {place for place in places if rows[place] != ERASED}
        for place in forgotten:
            _drop_image(ledger, request, rows[place].image, {number * PAGE + place for place in places})
        if forgotten:
            left = tuple(ERASED if place in places else row for place, row in enumerate(rows))
            ledger.store.put(object_keys.page(request.id, request.nonce, number), Page(rows=left).dump())
    except NotFound:  # the whole batch was erased meanwhile
        return
    finally:
        ledger.redis.leases.release(lease, token)


def _drop_image(ledger: Ledger, request: Request, image: str, rows: set[int]) -> None:
    """An image that came for these rows alone. What an operator put into the store is the operator's."""
    kind, _, where = image.partition(":")
    if kind == "upload":
        ledger.store.delete(object_keys.upload(request.tenant, where))
    elif kind == "file" and all(row.image != image or n in rows for n, row in manifest(ledger, request)):
        ledger.store.delete(object_keys.batch_input(request.id, request.nonce, where))
