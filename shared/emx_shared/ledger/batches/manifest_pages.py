"""The manifest of a batch, in pages."""

import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice

from emx_shared.ledger import object_keys
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import ROWS_PER_PAGE, BatchRecord, CutRecord, ManifestPage, Row, UnreadableRecord
from emx_shared.ledger.uploads import use_up
from emx_shared.store import NoSuchObject, StoreError

ERASED_ROW = Row(image="erased:")
"""Stands in the place of a row whose job was erased."""

LOST_ROW = Row(image="lost:")
"""Stands in the place of each row of a page that was cut: no image is found for it."""

_ITEMS = uuid.UUID("8f1d2b9e-6b0c-5ad4-9d0a-7a9d6c1f4b52")
_TRIES = 50
_PAUSE = 0.1


def item_id(batch: str, row: int) -> str:
    """Return the id of a row's job, whether the job exists yet or not."""
    return str(uuid.uuid5(_ITEMS, f"{batch}\n{row}"))


def write_manifest(ledger: Ledger, batch: str, nonce: str, rows: Iterable[Row]) -> int:
    """Write a manifest, reading its rows one by one. Return how many there were.

    An upload is deleted with the submission of its row. Rows whose upload a later row names too are marked in the
    end, once it is known which these are, so that their upload stays for it.
    """
    count, unread = 0, iter(rows)
    last_row_of: dict[str, int] = {}
    kept: dict[int, set[int]] = defaultdict(set)
    while page := tuple(islice(unread, ROWS_PER_PAGE)):
        for number, row in enumerate(page, start=count):
            if row.image.startswith("upload:"):
                if (former := last_row_of.get(row.image)) is not None:
                    kept[former // ROWS_PER_PAGE].add(former % ROWS_PER_PAGE)
                last_row_of[row.image] = number
        ledger.store.put(object_keys.page(batch, nonce, count // ROWS_PER_PAGE), ManifestPage(rows=page).dump())
        count += len(page)
    for number, places in kept.items():
        key = object_keys.page(batch, nonce, number)
        found = ManifestPage.load(ledger.store.get(key)).rows
        marked = tuple(row.model_copy(update={"keeps_upload": place in places}) for place, row in enumerate(found))
        ledger.store.put(key, ManifestPage(rows=marked).dump())
    return count


def manifest_rows(ledger: Ledger, batch: BatchRecord, first: int = 0) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a batch from ``first`` on, with their numbers.

    Raises:
        NoSuchObject: it was erased.
        UnreadableRecord: a page is damaged, or written by a newer version.
    """
    for number in range(first // ROWS_PER_PAGE, _page_count(batch)):
        for place, row in enumerate(page_rows(ledger, batch, number), start=number * ROWS_PER_PAGE):
            if place >= first:
                yield place, row


def readable_rows(ledger: Ledger, batch: BatchRecord) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a batch as ``manifest_rows`` does, but pass over the pages that can't be read."""
    for number in range(_page_count(batch)):
        with suppress(UnreadableRecord):
            yield from enumerate(page_rows(ledger, batch, number), start=number * ROWS_PER_PAGE)


def page_rows(ledger: Ledger, batch: BatchRecord, number: int) -> tuple[Row, ...]:
    """Return the rows of one page; of one that was cut, as many lost ones. Raises as ``manifest_rows``."""
    try:
        return ManifestPage.load(ledger.store.get(object_keys.page(batch.id, batch.nonce, number))).rows
    except CutRecord:
        return (LOST_ROW,) * min(ROWS_PER_PAGE, batch.rows - number * ROWS_PER_PAGE)


def _page_count(batch: BatchRecord) -> int:
    return -(-batch.rows // ROWS_PER_PAGE)


def drop_other_submissions(ledger: Ledger, batch: BatchRecord) -> None:
    """Delete what other submissions with the batch's idempotency key brought: they don't count."""
    for entry in list(ledger.store.list(object_keys.submissions(batch.id))):
        if not entry.key.startswith(object_keys.submission(batch.id, batch.nonce)):
            ledger.store.delete(entry.key)


def forget_rows(ledger: Ledger, batch: BatchRecord, rows: Iterable[int]) -> None:
    """Replace erased items' rows in the manifest, and delete the images that only it names.

    Raises:
        StoreError, RedisError: try again later.
    """
    of_page: dict[int, set[int]] = defaultdict(set)
    for row in rows:
        of_page[row // ROWS_PER_PAGE].add(row % ROWS_PER_PAGE)
    for number, places in of_page.items():
        _forget(ledger, batch, number, places)


@contextmanager
def rewriting(ledger: Ledger, batch: BatchRecord, number: int) -> Iterator[None]:
    """Keep others from rewriting a page: two at once would each bring back the other's row.

    Raises:
        StoreError: others are at it.
        RedisError: Redis is unavailable, so that nobody can tell.
    """
    lease, token = f"page:{batch.id}:{number}", uuid.uuid4().hex
    for _ in range(_TRIES):
        if ledger.redis.leases.take(lease, token):
            break
        time.sleep(_PAUSE)
    else:
        raise StoreError("a batch's manifest is being changed by others")
    try:
        yield
    finally:
        ledger.redis.leases.release(lease, token)


def _forget(ledger: Ledger, batch: BatchRecord, number: int, places: set[int]) -> None:
    """Rewrite one page. Images go first: once the row is gone, nothing names them."""
    with rewriting(ledger, batch, number), suppress(NoSuchObject):  # the whole batch was erased meanwhile
        rows = page_rows(ledger, batch, number)
        forgotten = {place for place in places if rows[place] != ERASED_ROW}
        erased = {number * ROWS_PER_PAGE + place for place in places}
        for place in forgotten:
            _drop_image(ledger, batch, rows[place].image, erased)
        if forgotten:
            left = tuple(ERASED_ROW if place in places else row for place, row in enumerate(rows))
            key = object_keys.page(batch.id, batch.nonce, number)
            ledger.store.put(key, ManifestPage(rows=left).dump())


def _drop_image(ledger: Ledger, batch: BatchRecord, image: str, rows: set[int]) -> None:
    """Delete an image that came for these rows alone. What an operator put into the store is the operator's."""
    kind, _, where = image.partition(":")
    if kind not in ("upload", "file") or any(
        row.image == image and number not in rows for number, row in readable_rows(ledger, batch)
    ):
        return
    if kind == "upload":
        use_up(ledger, batch.tenant, where)
    else:
        ledger.store.delete(object_keys.batch_input(batch.id, batch.nonce, where))
