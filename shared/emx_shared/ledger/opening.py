"""From the settings to a ledger, the same in every process."""

import logging
import time

from emx_shared.ledger import Ledger, object_keys
from emx_shared.ledger.records import FORMAT
from emx_shared.messaging import CeleryQueue, celery_app
from emx_shared.redis_state import RedisState
from emx_shared.settings import Settings
from emx_shared.store import NoSuchObject, Store, StoreError, UnsuitableStore, open_store

log = logging.getLogger("emx.ledger")

STARTUP_WAIT = 30.0
"""Seconds for which a process waits for its store at start."""

_PAUSE = 2.0

_MAJOR = FORMAT.partition(".")[0].encode()
"""What the store says of its records. Records of another minor version are read as well."""


def open_ledger(settings: Settings, name: str, wait: float = STARTUP_WAIT) -> Ledger:
    """Open and check the store, and make what else a ledger needs.

    Args:
        settings: where store and Redis are.
        name: of the process, for Celery.
        wait: seconds for which an unavailable store is tried again, with a line in the log each time.

    Raises:
        UnsuitableStore: the store can't hold a ledger, or its clock isn't this machine's; the text says why.
        StoreError: the store is still unavailable.
    """
    store = open_store(settings)
    _check_when_available(store, wait)
    return _ledger_on(store, settings, name)


def look_at_ledger(settings: Settings) -> Ledger:
    """Open a ledger without writing to its store, which is not tried.

    Raises:
        UnsuitableStore: another version wrote this store's records.
        StoreError: the store is unavailable.
    """
    store = open_store(settings)
    _check_format(store)
    return _ledger_on(store, settings, "emx")


def _ledger_on(store: Store, settings: Settings, name: str) -> Ledger:
    redis_state = RedisState(settings.redis, settings.lease)
    queue = CeleryQueue(celery_app(name, settings), redis_state.connection.breaker)
    return Ledger(store, redis_state, queue, settings)


def _check_when_available(store: Store, wait: float) -> None:
    give_up = time.monotonic() + wait
    while True:
        try:
            store.check()
            _check_format(store)
            store.put_if_absent(object_keys.FORMAT, _MAJOR)
            if fault := store.clock_fault():
                raise UnsuitableStore(fault)
            return
        except UnsuitableStore:
            raise
        except StoreError as error:
            if time.monotonic() >= give_up:
                raise
            log.warning("%s. Trying again in %.0f s.", error, _PAUSE)
            time.sleep(_PAUSE)


def _check_format(store: Store) -> None:
    """Refuse a store whose records another version wrote."""
    try:
        found = store.get(object_keys.FORMAT)
    except NoSuchObject:
        if next(iter(store.list(object_keys.JOBS)), None) is None:
            return
        found = b"1"
    if not found.isdigit():
        raise UnsuitableStore(
            f"The object `{object_keys.FORMAT}` of this store is damaged. If this version wrote the store, put "
            f"{_MAJOR.decode()} into it."
        )
    if found != _MAJOR:
        raise UnsuitableStore(
            f"This store was written by another version of ExplainMyXray (its format is {found[:9].decode()!r}, "
            f"this version's is {_MAJOR.decode()!r}). Use that version, or start with an empty store (EMX_STORE)."
        )
