"""Deliver: send one webhook that is owed, and record how that ended."""

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from emx_shared.ledger import object_keys
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import Delivery
from emx_shared.store import NoSuchObject

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 4 * 3600.0
"""Seconds between tries: doubling from the first to the longest, each with up to half as much jitter."""

_GONE, _TOO_MANY = 410, 429


@dataclass(frozen=True)
class EndpointAnswer:
    """How an endpoint answered.

    Attributes:
        status: of HTTP; None if there was no answer.
        why: why there was none.
        retry_after: seconds for which the endpoint asked to be left alone.
    """

    status: int | None
    why: str = ""
    retry_after: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the endpoint accepted the event."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def alive(self) -> bool:
        """Whether others may be sent there: it answered, and with neither a fault of its own nor "too many"."""
        return self.status is not None and self.status < 500 and self.status != _TOO_MANY


def deliver(ledger: Ledger, delivery_id: str, send: Callable[[Delivery], EndpointAnswer]) -> Delivery | None:
    """Try a webhook once, if it is due.

    Args:
        ledger: what owes it.
        delivery_id: which.
        send: sends the event; it reports what went wrong instead of raising.

    Returns:
        The delivery's record after the try; None if there was nothing to do.

    Raises:
        StoreError: the store is unavailable; the webhook stays owed.
    """
    store = ledger.store
    if store.exists(object_keys.delivery(delivery_id)):
        store.delete(object_keys.outbox(delivery_id))
        return None
    try:
        owed = Delivery.load(store.get(object_keys.outbox(delivery_id)))
    except NoSuchObject:
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


def _after(ledger: Ledger, owed: Delivery, answer: EndpointAnswer) -> Delivery:
    now, tries = ledger.now(), owed.tries + 1
    pause = min(FIRST_PAUSE * 2 ** min(tries - 1, 20), LONGEST_PAUSE) * random.uniform(1, 1.5)
    pause = max(pause, min(answer.retry_after or 0.0, LONGEST_PAUSE))
    age = (now - owed.created_at).total_seconds()
    ended = answer.ok or answer.status == _GONE or age > ledger.settings.webhook_give_up
    status = ("delivered" if answer.ok else "undelivered") if ended else "owed"
    return owed.model_copy(
        update={
            "tries": tries,
            "next_at": now + timedelta(seconds=pause),
            "status": status,
            "last_answer": str(answer.status or answer.why),
            "at_once": False,
        }
    )


def put_off(ledger: Ledger, owed: Delivery, seconds: float) -> None:
    """Let a webhook wait without a try, since its endpoint doesn't answer."""
    later = owed.model_copy(update={"next_at": ledger.now() + timedelta(seconds=seconds)})
    ledger.store.put(object_keys.outbox(owed.id), later.dump())


def send_at_once(ledger: Ledger, owed: Delivery) -> Delivery:
    """Make an owed webhook due now, even if its endpoint is paused. The tries it had still count."""
    due = owed.model_copy(update={"next_at": ledger.now(), "at_once": True})
    ledger.store.put(object_keys.outbox(owed.id), due.dump())
    ledger.queue.deliver(owed.id)
    return due


def redeliver(ledger: Ledger, ended: Delivery) -> Delivery:
    """Owe an event once more, under the same message id. The record of the delivery that ended stays."""
    now = ledger.now()
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
