"""Abandon: give up a submission that never committed."""

from emx_shared.ledger import object_keys
from emx_shared.ledger.damage import damaged_job
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import Tombstone


def abandon(ledger: Ledger, id: str) -> None:
    """Take from a submission the record that it might still write, and delete what it brought.

    Its client was never told that it was accepted; a repeated idempotency key makes another job.
    """
    store, now = ledger.store, ledger.now()
    cut = damaged_job(ledger, id, now)
    ledger.write_once(object_keys.record(id), Tombstone(id=id, why="abandoned", submitted_at=now).dump())
    winner = ledger.record(id)
    if not (isinstance(winner, Tombstone) and winner.why == "abandoned"):
        return
    for group in object_keys.groups(cut) if cut else ():
        store.delete(group)
    for prefix in (object_keys.inputs(id), object_keys.batch(id)):
        store.delete_below(prefix)
    store.delete(object_keys.open_marker(id))
