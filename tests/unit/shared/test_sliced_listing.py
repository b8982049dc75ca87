"""A long listing, slice by slice across calls."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from emx_shared.ledger import sliced_listing
from emx_shared.ledger.sliced_listing import SlicedListing
from emx_shared.store import Entry, StoreError


def entries(count: int, fails_at: int | None = None) -> Iterator[Entry]:
    for number in range(count):
        if number == fails_at:
            raise StoreError("away")
        yield Entry(str(number), datetime.now(UTC))


def keys(listing: SlicedListing, seconds: float) -> list[str]:
    return [entry.key for some in listing.slices(seconds) for entry in some]


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliced_listing, "SLICE", 3)


def test_each_call_goes_on_where_the_last_one_stopped_and_then_begins_anew() -> None:
    listing = SlicedListing(lambda: entries(7))
    assert keys(listing, -1) == ["0", "1", "2"]
    assert not listing.at_end
    assert keys(listing, -1) == ["3", "4", "5"]
    assert keys(listing, 60) == ["6"]
    assert listing.at_end
    assert keys(listing, 60) == list("0123456")


def test_nothing_is_left_out_after_an_error_wherever_it_was() -> None:
    begun = [entries(7, fails_at=4), entries(7), entries(7)]
    listing = SlicedListing(lambda: begun.pop(0))
    assert keys(listing, -1) == ["0", "1", "2"]
    with pytest.raises(StoreError):
        keys(listing, -1)
    assert not listing.at_end
    for _ in listing.slices(60):
        break  # whoever went through it had an error of its own
    assert keys(listing, 60) == list("0123456")


def test_it_begins_at_most_so_often() -> None:
    listing = SlicedListing(lambda: entries(4), every=1000)
    assert keys(listing, -1) == ["0", "1", "2"]
    assert keys(listing, 60) == ["3"]
    assert keys(listing, 60) == []
    assert listing.at_end
