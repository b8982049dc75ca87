"""Deliver: send one webhook that is owed, and record how that ended."""

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from emx_shared.ledger import object_keys
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import Delivery
from emx_shared.store import NotFound

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 4 * 3600.0
"""Seconds between tries: doubling from the first to the longest, each with up to half as much jitter."""


@dataclass(frozen=True)
class Answer:
    """What the endpoint said: an HTTP status, or None and why there was none."""

    status: int | None
    why: str = ""

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def deliver(ledger: Ledger, delivery_id: str, send: Callable[[Delivery], Answer]) -> Delivery | None:
    """One try, if it is due. Returns the delivery's record, or None if there was nothing to do."""
    store = ledger.store
    if store.exists(object_keys.delivery(delivery_id)):
        store.delete(object_keys.outbox(delivery_id))
        return None
    try:
        owed = Delivery.model_validate_json(store.get(object_keys.outbox(delivery_id)))
    except NotFound:
        return None
    if store.now() < owed.next_at:
        return None
    tried = _after(ledger, owed, send(owed))
    if tried.status == "owed":
        store.put(object_keys.outbox(delivery_id), tried.dump())
    else:
        store.put_if_absent(object_keys.delivery(delivery_id), tried.dump())
        store.delete(object_keys.outbox(delivery_id))
    return tried


def _after(ledger: Ledger, owed: Delivery, answer: Answer) -> Delivery:
    now, tries = ledger.store.now(), owed.tries + 1
    pause = min(FIRST_PAUSE * 2 ** min(tries - 1, 20), LONGEST_PAUSE) * random.uniform(1, 1.5)
    age = (now - owed.created_at).total_seconds()
    ended = answer.ok or answer.status == 410 or age > ledger.settings.webhook_give_up
    status = ("delivered" if answer.ok else "undelivered") if ended else "owed"
    return owed.model_copy(
        update={
            "tries": tries,
            "next_at": now + timedelta(seconds=pause),
            "status": status,
            "last_answer": str(answer.status or answer.why),
        }
    )


def redeliver(ledger: Ledger, ended: Delivery) -> Delivery:
    """Owe an event once more. What is recorded of the delivery that ended stays; the receiver sees the same id."""
    now = ledger.store.now()
    again = ended.model_copy(
        update={
            "id": str(uuid.uuid4()),
            "message": ended.message or ended.id,
            "status": "owed",
            "tries": 0,
            "created_at": now,
            "next_at": now,
            "last_answer": "",
        }
    )
    ledger.store.put(object_keys.outbox(again.id), again.dump())
    ledger.redis.listings.add_delivery(again.tenant, again.id, now)
    ledger.queue.deliver(again.id)
    return again
