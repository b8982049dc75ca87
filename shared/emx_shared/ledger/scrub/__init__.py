"""Scrub: look at every object of a store, and mend what stopped half-way and nothing else brings to its end.

What each kind of fault is and what is done about it: ``faults.py``. The modules beside it say for their objects
what is decided where something can't be read.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import groupby, islice

from emx_shared.ledger import object_keys
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.scrub.batch_faults import faults_of_batch
from emx_shared.ledger.scrub.faults import Fault, FaultKind
from emx_shared.ledger.scrub.job_faults import faults_of_job
from emx_shared.ledger.scrub.marker_faults import (
    faults_of_delivery,
    faults_of_erasure,
    faults_of_group_marker,
    faults_of_key,
    faults_of_open_marker,
    faults_of_probe,
    faults_of_unread_marker,
    faults_of_upload,
)
from emx_shared.ledger.scrub.view import View
from emx_shared.store import NoSuchObject
from emx_shared.store.base import Entry
from emx_shared.store.directory import DirectoryStore

__all__ = ["Fault", "FaultKind", "examine"]

_CONNECTIONS = 16
"""Objects that are looked at side by side."""

_AT_A_TIME = 256
"""Jobs, or single objects, between two reports of progress."""

_OF_ONE: dict[str, Callable[[View, Entry], Iterator[Fault]]] = {
    "access/": faults_of_key,
    object_keys.DELIVERIES: faults_of_delivery,
    object_keys.ERASE: faults_of_erasure,
    object_keys.GROUPS: faults_of_group_marker,
    object_keys.OPEN: faults_of_open_marker,
    object_keys.OUTBOX: faults_of_delivery,
    object_keys.PROBE: faults_of_probe,
    "secrets/": faults_of_key,
    object_keys.UNREAD: faults_of_unread_marker,
    object_keys.UPLOADS: faults_of_upload,
}
_OF_SEVERAL: dict[str, Callable[[View, str, list[Entry]], Iterator[Fault]]] = {
    object_keys.BATCHES: faults_of_batch,
    object_keys.JOBS: faults_of_job,
}
_NOT_OURS = (object_keys.FORMAT, object_keys.IMPORTS, object_keys.USED_UPLOADS)


def examine(ledger: Ledger, older_than: float, progress: Callable[[int], object]) -> Iterator[Fault]:
    """Yield what is wrong in a store. Looking changes nothing; each fault can be mended when it is yielded.

    It runs beside a working service: what is younger than ``older_than`` is left to the process that is at it.

    Args:
        ledger: of the store.
        older_than: in seconds.
        progress: called now and then with the number of objects that were looked at since.

    Raises:
        StoreError: the store is unavailable.
    """
    view = View(ledger, older_than)
    folders = groupby(ledger.store.list(""), _folder)
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        while some := [(folder, list(entries)) for folder, entries in islice(folders, _AT_A_TIME)]:
            for found in pool.map(lambda each: _faults(view, *each), some):
                yield from found
            progress(sum(len(entries) for _, entries in some))
    yield from _unfinished_writes(ledger, older_than)


def _folder(entry: Entry) -> str:
    """Return the prefix of what is looked at together: the objects of a job or a batch, else a single one."""
    room, slash, rest = entry.key.partition("/")
    if room + slash in _OF_SEVERAL:
        return f"{room}/{rest.partition('/')[0]}"
    return entry.key


def _faults(view: View, folder: str, entries: list[Entry]) -> list[Fault]:
    room, slash, id = folder.partition("/")
    room += slash
    try:
        if several := _OF_SEVERAL.get(room):
            return list(several(view, id, entries))
        if one := _OF_ONE.get(room):
            return list(one(view, entries[0]))
    except NoSuchObject:  # deleted while it was looked at
        return []
    return [] if folder.startswith(_NOT_OURS) else [Fault(FaultKind.UNKNOWN, folder)]


def _unfinished_writes(ledger: Ledger, older_than: float) -> Iterator[Fault]:
    """Yield what writes left behind whose process was killed: it may hold a whole radiograph."""
    if not isinstance(ledger.store, DirectoryStore):
        return
    for part in sorted((ledger.store.root / ".parts").iterdir()):
        with suppress(FileNotFoundError):
            if part.name != "lock" and time.time() - part.stat().st_mtime >= older_than:
                drop = partial(ledger.store.drop_unfinished, older_than)
                yield Fault(FaultKind.PART, f".parts/{part.name}", drop)
