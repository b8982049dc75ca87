"""Scrub: look at every object of a store, and mend what stopped half-way and nothing else brings to its end.

What each kind of fault is and what is done about it: ``faults.py``. The modules beside it say for their objects
what is decided where something can't be read.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby, islice

from emx_shared.api_keys import ACCESS
from emx_shared.ledger import object_keys
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.scrub.batch_faults import faults_of_batch
from emx_shared.ledger.scrub.faults import Fault, FaultKind
from emx_shared.ledger.scrub.job_faults import faults_of_job
from emx_shared.ledger.scrub.marker_faults import (
    faults_of_delivery,
    faults_of_erasure,
    faults_of_feedback_marker,
    faults_of_group_marker,
    faults_of_key,
    faults_of_open_marker,
    faults_of_probe,
    faults_of_secrets,
    faults_of_unread_marker,
    faults_of_upload,
)
from emx_shared.ledger.scrub.view import View
from emx_shared.store import NoSuchObject
from emx_shared.store.base import Entry
from emx_shared.webhooks.secrets import SECRETS

__all__ = ["Fault", "FaultKind", "examine"]

_CONNECTIONS = 16
"""Objects that are looked at side by side."""

_LONGEST_WRITE = 60.0
"""Seconds that one write to a disk may take; a process that works has no older ones under way."""

_AT_A_TIME = 256
"""Jobs, or single objects, between two reports of progress."""

_Look = Callable[[View, str, list[Entry]], Iterator[Fault]]


def _each(look: Callable[[View, Entry], Iterator[Fault]]) -> _Look:
    """Look at objects one by one."""
    return lambda view, _, entries: look(view, entries[0])


_ROOMS: dict[str, _Look] = {
    object_keys.ERASE: _each(faults_of_erasure),
    object_keys.OPEN: _each(faults_of_open_marker),
    object_keys.JOBS: faults_of_job,
    object_keys.BATCHES: faults_of_batch,
    object_keys.UNREAD: _each(faults_of_unread_marker),
    object_keys.OUTBOX: _each(faults_of_delivery),
    object_keys.DELIVERIES: _each(faults_of_delivery),
    object_keys.GROUPS: _each(faults_of_group_marker),
    object_keys.FEEDBACK: _each(faults_of_feedback_marker),
    object_keys.UPLOADS: _each(faults_of_upload),
    object_keys.PROBE: _each(faults_of_probe),
    ACCESS: _each(faults_of_key),
    SECRETS: _each(faults_of_secrets),
}
"""In this order, so that what was mended first leaves nothing for a second time."""


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
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        for room, look in _ROOMS.items():
            folders = groupby(ledger.store.list(room), partial(_folder, room))
            while some := [(folder, list(entries)) for folder, entries in islice(folders, _AT_A_TIME)]:
                for found in pool.map(lambda each, look=look: _found(look, view, *each), some):
                    yield from found
                progress(sum(len(entries) for _, entries in some))
    yield from _unfinished_writes(ledger, older_than)


def _folder(room: str, entry: Entry) -> str:
    """Return what is looked at together: the id of a job or a batch, which have several objects, else a name."""
    name = entry.key.removeprefix(room)
    return name.partition("/")[0] if room in (object_keys.JOBS, object_keys.BATCHES) else name


def _found(look: _Look, view: View, name: str, entries: list[Entry]) -> list[Fault]:
    try:
        return list(look(view, name, entries))
    except NoSuchObject:  # deleted while it was looked at
        return []


def _unfinished_writes(ledger: Ledger, older_than: float) -> Iterator[Fault]:
    """Yield what writes left behind whose process was killed: it may hold a whole radiograph."""
    old = max(older_than, _LONGEST_WRITE)
    drop = partial(ledger.store.drop_unfinished, old)
    yield from (Fault(FaultKind.PART, name, drop) for name in ledger.store.unfinished(old))
