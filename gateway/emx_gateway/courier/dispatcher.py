"""Sends webhooks that are due so that no endpoint and no tenant delays the others."""

import logging
import random
import threading
import uuid
from urllib.parse import urlsplit

from redis.exceptions import RedisError

from emx_gateway.courier.endpoint_health import EndpointHealth
from emx_gateway.services.webhook_sender import Sender
from emx_shared.fair_threads import FairThreads
from emx_shared.ledger import EndpointAnswer, Ledger, deliver, longest_try, put_off
from emx_shared.ledger.records import Delivery
from emx_shared.prometheus_metrics import DELIVERIES
from emx_shared.store import StoreError

log = logging.getLogger("emx.courier")

_THREADS, _PER_TENANT, _PER_ENDPOINT = 32, 8, 4
"""Tries at a time: of this courier, for one tenant, and to one endpoint of a tenant's."""


class WebhookDispatcher:
    """Takes deliveries in any order, and sends them in turns.

    What it has in hand may be lost at any time: the outbox has it, and the reconciler will name it again.
    """

    def __init__(self, ledger: Ledger, sender: Sender) -> None:
        """Start the threads that send."""
        self._ledger, self._sender = ledger, sender
        self._threads = FairThreads(_THREADS, "webhook", _PER_TENANT, _PER_ENDPOINT)
        self._health = EndpointHealth()
        self._in_hand: set[str] = set()
        self._lock = threading.Lock()

    def dispatch(self, id: str) -> None:
        """Send a delivery when its turn comes, unless it is in hand already. Raises StoreError."""
        with self._lock:
            if id in self._in_hand:
                return
            self._in_hand.add(id)
        try:
            owed = self._ledger.delivery(id)
        except BaseException:
            self._let_go(id)
            raise
        if owed is None:
            self._let_go(id)
        else:
            self._threads.submit(owed.tenant, lambda: self._send(owed), _endpoint(owed))

    def _send(self, owed: Delivery) -> None:
        try:
            pause = 0.0 if owed.at_once else self._health.seconds_paused(_endpoint(owed))
            if pause and owed.status == "owed":
                put_off(self._ledger, owed, pause * random.uniform(1, 1.2))
            else:
                self._try(owed)
        except (StoreError, RedisError) as error:
            log.warning("a webhook was put off: %s", type(error).__name__)
            self._ledger.redis.due_deliveries.note(owed.id, owed.next_at)  # for the reconciler's next round
        except Exception:
            log.exception("sending %s failed", owed.id)
        finally:
            self._let_go(owed.id)

    def _try(self, owed: Delivery) -> None:
        """Try a webhook; one courier at a time, as far as Redis can tell."""
        leases, lease, token = self._ledger.redis.leases, f"delivery:{owed.id}", uuid.uuid4().hex
        answers: list[EndpointAnswer] = []

        def send(due: Delivery) -> EndpointAnswer:
            answers.append(self._sender.send(due))
            return answers[0]

        try:
            taken = leases.take(lease, token, longest_try(self._ledger.settings))
            tried = deliver(self._ledger, owed.id, send) if taken else None
            if tried:
                DELIVERIES.labels(tried.status).inc()
        finally:
            leases.release(lease, token)
            self._learn(_endpoint(owed), answers)

    def _learn(self, endpoint: str, answers: list[EndpointAnswer]) -> None:
        if not answers:
            self._health.untried(endpoint)
        elif answers[0].alive:
            self._health.succeeded(endpoint)
        else:
            self._health.failed(endpoint, answers[0].retry_after)

    def _let_go(self, id: str) -> None:
        with self._lock:
            self._in_hand.discard(id)


def _endpoint(delivery: Delivery) -> str:
    """Return what fails together: a tenant's addresses at one host and port."""
    return f"{delivery.tenant} {urlsplit(delivery.url).netloc.rpartition('@')[2].lower()}"
