"""What a phase works with: the system, its clients, and the row that it fills."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from emx_shared.ledger import Ledger, object_keys
from tests.chaos.book import Book
from tests.chaos.load import Load
from tests.chaos.observer import Observer
from tests.chaos.system import System

_RECOVERY_SECONDS = 90.0
"""A system from which no outcome has come for so long has not recovered."""


@dataclass
class Row:
    """One line of the matrix.

    Attributes:
        name: of the phase.
        jobs: accepted in it, items of batches included.
        lost: of these, without the outcome that they should have.
        double_outcomes: whose outcome was changed, or reported in two ways.
        owed_webhooks: events that never came, or came under two ids.
        orphans: objects that are left where nothing should be, erased bytes included.
        recovery_seconds: from healing to the first outcome that was seen after it; None if there was none.
        ended_seconds: from healing until all of the row's jobs had ended.
        skipped: whether this machine or store can't have the fault.
        notes: what else there is to say.
    """

    name: str
    jobs: int = 0
    lost: int = 0
    double_outcomes: int = 0
    owed_webhooks: int = 0
    orphans: int = 0
    recovery_seconds: float | None = None
    ended_seconds: float | None = None
    skipped: bool = False
    notes: list[str] = field(default_factory=list)
    healed_at: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether every invariant held."""
        recovered = self.skipped or self.recovery_seconds is not None
        return recovered and not (self.lost or self.double_outcomes or self.owed_webhooks or self.orphans)


@dataclass
class Bench:
    """What all phases share.

    Attributes:
        jobs: how many each row submits, about.
        ledger: the harness's own, past all faults, for looking and for damaging records.
        strays: ids of jobs that nobody submitted, of which nothing may be left in the end.
    """

    system: System
    load: Load
    book: Book
    observer: Observer
    ledger: Ledger
    jobs: int
    random: random.Random
    strays: list[str] = field(default_factory=list)
    given_up: bool = False

    def give_up(self) -> None:
        """Let nobody wait any more, since the run was interrupted."""
        self.given_up = True
        self.load.give_up()

    @contextmanager
    def under_load(self, row: Row) -> Iterator[None]:
        """Submit jobs during the block, and one more once it is left, which is when the fault has healed."""
        with self.load.running(row.name, self.jobs):
            time.sleep(0.2)
            yield
            row.healed_at = time.monotonic()
            self.load.submit(row.name)

    def recover(self, row: Row) -> None:
        """Wait for the first outcome after healing."""
        until = row.healed_at + _RECOVERY_SECONDS
        while time.monotonic() < until and not self.given_up:
            if seen := self.observer.first_after(row.name, row.healed_at):
                row.recovery_seconds = round(seen - row.healed_at, 2)
                return
            time.sleep(0.02)
        row.notes.append(f"no outcome within {_RECOVERY_SECONDS:.0f} s")

    def remove_strays(self, ids: Sequence[str]) -> None:
        """Remove what is stored of strays, as an operator would who was told of them."""
        store, unread = self.ledger.store, object_keys.unread_batches("default")
        for id in ids:
            for key in (object_keys.open_marker(id), object_keys.erasing(id), f"{unread}{id}"):
                store.delete(key)
            for prefix in (object_keys.record(id).removesuffix("request.json"), object_keys.batch(id)):
                store.delete_below(prefix)

    def wait_until_ended(self, seconds: float, row: str | None = None, ids: Sequence[str] = ()) -> bool:
        """Wait until everything has an outcome, of one row or of all, or of some ids. Return whether it has."""
        until, wanted = time.monotonic() + seconds, set(ids)
        while wanted & set(self.observer.open(row)) if wanted else self.observer.open(row):
            if time.monotonic() > until or self.given_up:
                return False
            time.sleep(0.05)
        return True


class NotHere(Exception):
    """This machine or this store can't have the fault; the text says why."""


@dataclass(frozen=True)
class Phase:
    """One fault: how it comes, and how it heals.

    Attributes:
        name: of its row.
        run: has the fault and heals it; it sets ``healed_at``, and may raise NotHere.
        heading: what the documents say of it.
        loaded: whether it submits its share of the jobs, and not what it needs.
        beside: whether a short run begins it together with the phase before it.
    """

    name: str
    run: Callable[[Bench, Row], None]
    heading: str
    loaded: bool = True
    beside: bool = False
