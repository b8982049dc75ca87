"""Deliver: send one webhook that is owed, and record how that ended."""

import itertools
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from emx_shared.ledger import object_keys
from emx_shared.ledger.jobs.finish import event_type
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import BatchRecord, Delivery, JobRecord
from emx_shared.settings import Settings

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 4 * 3600.0
"""Seconds between tries: doubling from the first to the longest, each with up to half as much jitter."""

_REPEATS = uuid.UUID("7c1f8a1e-4a34-5a0b-9f3c-5b8f2f0a6c11")
_GONE, _TOO_MANY = 410, 429

_ASIDE = 5.0
"""Seconds that a try may take beside its sending: for the store, and a name server that is slow."""


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


def longest_try(settings: Settings) -> float:
    """Return the seconds after which a try of which nothing was heard may be made by another courier."""
    return settings.webhook_timeout + _ASIDE


def deliver(ledger: Ledger, delivery_id: str, send: Callable[[Delivery], EndpointAnswer]) -> Delivery | None:
    """Try a webhook once, if it is due.

    Args:
        ledger: what owes it.
        delivery_id: which.
        send: sends the event; it reports what went wrong instead of raising.

    Returns:
        The delivery's record after the try; None if there was nothing to do.

    Raises:
        StoreError: the store is unavailable; the webhook stays owed. If it was sent, that is remembered, and only
            noted the next time.
    """
    due = ledger.redis.due_deliveries
    owed = ledger.delivery(delivery_id)
    if owed is None:  # or its writer died in the middle: whoever finishes the job writes it again
        due.forget(delivery_id)
        return None
    if owed.status != "owed":
        ledger.store.delete(object_keys.outbox(delivery_id))
        due.forget(delivery_id)
        return None
    tried = _unnoted(ledger, owed)
    if tried is None:
        if ledger.now() < owed.next_at:
            due.note(delivery_id, owed.next_at)
            return None
        tried = _after(ledger, owed, send(owed))
        due.keep_try(delivery_id, tried.dump())
    _note(ledger, tried)
    due.forget_try(delivery_id)
    return tried


def _unnoted(ledger: Ledger, owed: Delivery) -> Delivery | None:
    """Return the try that came after what the store says, if the store couldn't be written then."""
    kept = ledger.redis.due_deliveries.last_try(owed.id)
    tried = Delivery.load(kept) if kept else None
    return tried if tried and tried.tries > owed.tries else None


def _note(ledger: Ledger, tried: Delivery) -> None:
    """Write what came of a try."""
    if tried.status == "owed":
        _owe(ledger, tried)
        return
    if (outcome := ledger.outcome(tried.job)) and outcome.erased:
        tried = tried.model_copy(update={"url": ""})
    ledger.write_once(object_keys.delivery(tried.id), tried.dump())
    ledger.store.delete(object_keys.outbox(tried.id))
    ledger.redis.due_deliveries.forget(tried.id)


def _owe(ledger: Ledger, delivery: Delivery) -> None:
    """Write a delivery that is to be tried at its time, in place of what the outbox says of it."""
    ledger.store.put(object_keys.outbox(delivery.id), delivery.dump())
    ledger.redis.due_deliveries.note(delivery.id, delivery.next_at)


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
    _owe(ledger, later)


def send_at_once(ledger: Ledger, owed: Delivery) -> Delivery:
    """Make an owed webhook due now, even if its endpoint is paused. The tries it had still count."""
    due = owed.model_copy(update={"next_at": ledger.now(), "at_once": True})
    _owe(ledger, due)
    ledger.queue.deliver(owed.id)
    return due


def redeliver(ledger: Ledger, ended: Delivery) -> Delivery:
    """Owe an event once more, under the same message id. The record of the delivery that ended stays."""
    now, message = ledger.now(), ended.message or ended.id
    number = next(n for n in itertools.count(1) if not _is_stored(ledger, _repeat_id(message, n)))
    again = ended.model_copy(
        update={
            "id": _repeat_id(message, number),
            "message": message,
            "status": "owed",
            "tries": 0,
            "created_at": now,
            "next_at": now,
            "last_answer": "",
        }
    )
    _owe(ledger, again)
    ledger.redis.listings.add_delivery(again.tenant, again.id, now)
    ledger.queue.deliver(again.id)
    return again


def deliveries_of(ledger: Ledger, record: JobRecord | BatchRecord) -> Iterator[Delivery]:
    """Yield the deliveries of a job or a batch that has ended, repeated ones included; damaged ones aren't."""
    for id in _delivery_ids(ledger, record):
        if found := ledger.if_readable(ledger.delivery, id):
            yield found


def forget_addresses(ledger: Ledger, record: JobRecord | BatchRecord) -> None:
    """Erase where events were sent to. Of those that are still owed that is done once they have ended."""
    for id in _delivery_ids(ledger, record):
        found = ledger.if_readable(ledger.delivery, id) or _unknown_end(ledger, record, id)
        if found.status != "owed":
            erased = found.model_copy(update={"url": ""})
            ledger.store.put(object_keys.delivery(found.id), erased.dump())


def _unknown_end(ledger: Ledger, record: JobRecord | BatchRecord, id: str) -> Delivery:
    """Return what stands for a damaged delivery: nobody can tell whether it was made. It isn't owed any more."""
    ledger.store.delete(object_keys.outbox(id))
    outcome, now = ledger.outcome(record.id), ledger.now()
    return Delivery(
        id=id,
        tenant=record.tenant,
        job=record.id,
        url="",
        event=event_type(record, outcome) if outcome else "",
        created_at=now,
        next_at=now,
        status="undelivered",
    )


def _delivery_ids(ledger: Ledger, record: JobRecord | BatchRecord) -> Iterator[str]:
    outcome = ledger.outcome(record.id)
    if record.webhook_url is None or outcome is None:
        return
    message = Delivery.id_of(record.id, record.webhook_url, event_type(record, outcome))
    ids = itertools.chain([message], (_repeat_id(message, n) for n in itertools.count(1)))
    yield from itertools.takewhile(lambda id: _is_stored(ledger, id), ids)


def _is_stored(ledger: Ledger, id: str) -> bool:
    return ledger.store.exists(object_keys.delivery(id)) or ledger.store.exists(object_keys.outbox(id))


def _repeat_id(message: str, number: int) -> str:
    """Return the id of an event's repeated delivery, so that all can be found again."""
    return str(uuid.uuid5(_REPEATS, f"{message}\n{number}"))
