"""What a store must do to hold a ledger, each as something to try."""

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from emx_shared.store.base import NoSuchObject, Store, UnsuitableStore

_USE_ANOTHER = "Use another: SeaweedFS, AWS S3, Ceph, Garage, or a local directory (EMX_STORE=file:DIR)."
_RACERS, _RACES = 8, 3
_LISTED = 1050
"""Objects: more than an S3 server lists at a time."""

_CONNECTIONS = 16
_CUT = b"x" * 4096
_CUT_SECONDS = 0.3
"""After which a server has done with a connection that was cut."""

_CLOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Requirement:
    """Something that a store must do.

    Attributes:
        promise: what a store does that meets it.
        fault: tries it with objects below a prefix, and returns what is wrong, if anything. Raises StoreError.
        at_start: whether every process tries it when it starts; the others take seconds, or a thousand objects.
    """

    name: str
    promise: str
    fault: Callable[[Store, str], str | None]
    at_start: bool = False


def refuse_unsuitable(store: Store) -> None:
    """Try what can be tried at every start. Raises UnsuitableStore, StoreError."""
    for requirement in REQUIREMENTS:
        if requirement.at_start and (fault := try_out(store, requirement)):
            raise UnsuitableStore(f"{fault} {_USE_ANOTHER}")


def try_out(store: Store, requirement: Requirement) -> str | None:
    """Return what a store doesn't do, and leave nothing behind. Raises StoreError."""
    folder = f"probe/{uuid.uuid4()}/"
    try:
        return requirement.fault(store, folder)
    finally:
        store.delete_below(folder)


def _conditional_write(store: Store, folder: str) -> str | None:
    key = f"{folder}once"
    first, second = store.put_if_absent(key, b"1"), store.put_if_absent(key, b"2")
    if first and not second and store.get(key) == b"1":
        return None
    return (
        "This object store ignores conditional writes (PUT with If-None-Match: *), on which every job's single "
        "outcome depends."
    )


def _race(store: Store, folder: str) -> str | None:
    """Let writers race for keys that don't exist."""
    for race in range(_RACES):
        key = f"{folder}race-{race}"
        winners = _winners(partial(store.put_if_absent, key))
        if len(winners) != 1 or store.get(key) != winners[0]:
            return f"Of {_RACERS} writers that raced for one key, {len(winners)} were told that they wrote it."
    return None


def _replacement(store: Store, folder: str) -> str | None:
    """Let writers race to replace what is there, and one replace what isn't there any more."""
    for race in range(_RACES):
        key = f"{folder}replaced-{race}"
        store.put(key, b"before")
        winners = _winners(partial(store.replace, key, b"before"))
        if len(winners) != 1 or store.get(key) != winners[0]:
            return (
                f"Of {_RACERS} writers that raced to replace one object, {len(winners)} were told that they did "
                "(PUT with If-Match): a record that was cut can't be mended safely."
            )
    if store.replace(f"{folder}absent", b"before", b"after") or store.exists(f"{folder}absent"):
        return "An object that doesn't exist was replaced all the same (PUT with If-Match)."
    return None


def _winners(write: Callable[[bytes], bool]) -> list[bytes]:
    """Return what those writers wrote of many at once who were told that they did."""
    together = threading.Barrier(_RACERS)

    def race(data: bytes) -> bool:
        together.wait()
        return write(data)

    written = [str(number).encode() for number in range(_RACERS)]
    with ThreadPoolExecutor(_RACERS) as threads:
        return [data for data, won in zip(written, threads.map(race, written), strict=True) if won]


def _cut_write(store: Store, folder: str) -> str | None:
    """Cut two writes, one before its first byte and one in the middle."""
    keys = {f"{folder}cut-{sent}": sent for sent in (0, len(_CUT) // 2)}
    for key, sent in keys.items():
        if not store.cut_write(key, _CUT, sent):
            return None  # what is written here appears whole or not at all
    time.sleep(_CUT_SECONDS)
    if any(store.exists(key) for key in keys):
        return "This object store keeps a part of an object whose upload was cut, though its digest was sent."
    return None


def _read_after_write(store: Store, folder: str) -> str | None:
    key = f"{folder}read"
    for data in (b"first", b"second"):
        store.put(key, data)
        if store.get(key) != data or not store.exists(key) or store.size(key) != len(data):
            return "An object that was just written is read as it was before."
        if [entry.key for entry in store.list(folder)] != [key]:
            return "An object that was just written isn't listed."
    return None


def _listing(store: Store, folder: str) -> str | None:
    """List more than one page, in order, and only what begins with a prefix."""
    ours, others = [f"{folder}a/{number:05d}" for number in range(_LISTED)], [f"{folder}b/x", f"{folder}ab"]
    with ThreadPoolExecutor(_CONNECTIONS) as threads:
        list(threads.map(lambda key: store.put(key, b""), [*reversed(ours), *others]))
        listed = [entry.key for entry in store.list(f"{folder}a/")]
        list(threads.map(store.delete, ours))
    if listed == ours:
        return None
    if sorted(listed) == ours:
        return "Objects aren't listed in the order of their keys."
    found = len(set(listed) & set(ours))
    return f"Of {_LISTED} objects with a prefix, {found} were listed, and {len(listed)} in all."


def _deletion(store: Store, folder: str) -> str | None:
    key = f"{folder}deleted"
    store.put(key, b"1")
    for _ in range(2):  # deleting what isn't there is no error
        store.delete(key)
        try:
            store.get(key)
        except NoSuchObject:
            if store.exists(key) or list(store.list(folder)):
                return "An object that was deleted is still listed."
            continue
        return "An object that was deleted can still be read."
    if not store.put_if_absent(key, b"2") or store.get(key) != b"2":
        return "An object that was deleted can't be written anew."
    return None


def _clock(store: Store, folder: str) -> str | None:
    """Compare the store's clock with this machine's, and with the times that it gives to objects."""
    if fault := store.clock_fault():
        return fault
    store.put(f"{folder}now", b"1")
    off = (next(iter(store.list(folder))).modified - store.now()).total_seconds()
    if abs(off) > _CLOCK_SECONDS:
        return f"The time that the store gives to an object is {abs(off):.0f} s off its own clock."
    return None


REQUIREMENTS = (
    Requirement(
        "Conditional writes", "an object that exists isn't overwritten", _conditional_write, at_start=True
    ),
    Requirement("Races", f"of {_RACERS} writers at once, one wins", _race),
    Requirement("Replacing", "an object is replaced only as long as it is the same", _replacement),
    Requirement("Cut writes", "of a write that was cut, nothing is kept", _cut_write, at_start=True),
    Requirement("Reading", "what was written is read and listed at once", _read_after_write),
    Requirement("Listing", f"{_LISTED} objects come in order, and none beside them", _listing),
    Requirement("Deleting", "what was deleted is gone at once", _deletion),
    Requirement("Clock", "the store's clock and this machine's agree", _clock),
)
