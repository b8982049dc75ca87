"""The courier's tasks: webhooks, batches and reconciling.

Safe to run twice: whatever it does may be repeated by anyone.
"""

import logging
import math
import sys
import threading
import uuid
from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup, celeryd_init, worker_shutting_down
from kombu import Queue
from redis.exceptions import RedisError

from emx_gateway.courier.dispatcher import WebhookDispatcher
from emx_gateway.services.webhook_sender import Sender
from emx_shared import ledger as ledgers
from emx_shared.ledger import Ledger, Reconciler
from emx_shared.ledger.opening import open_ledger
from emx_shared.messaging import ADVANCE_BATCH_TASK, COURIER_QUEUE, DELIVER_TASK, ERASE_BATCH_TASK, celery_app
from emx_shared.prometheus_metrics import LAST_ROUND, serve_metrics
from emx_shared.settings import settings
from emx_shared.store import StoreError

log = logging.getLogger("emx.courier")

_ALIVE_SECONDS = 60
"""For so long a round that succeeded shows that this courier works."""

_BREATH = 0.1
"""Seconds between rounds while there is more than one can look at."""

app: Celery = celery_app("courier", settings())
app.conf.update(task_queues=[Queue(COURIER_QUEUE)], worker_pool="threads", worker_concurrency=8)
_stopping = threading.Event()
_ledger: Ledger | None = None
_dispatcher: WebhookDispatcher | None = None


@celeryd_init.connect
def _name(instance: Any = None, **_: Any) -> None:
    instance.hostname = f"courier-{uuid.uuid4().hex[:8]}"


@celeryd_after_setup.connect
def _begin(**_: Any) -> None:
    """Open the ledger as soon as its store is available, before the first message is taken.

    Celery only logs what a signal's receiver raises, and continues; a courier without a store must not.
    """
    global _ledger, _dispatcher
    try:
        _ledger = open_ledger(settings(), "courier", wait=math.inf)
        _dispatcher = WebhookDispatcher(_ledger, Sender(_ledger))
        serve_metrics(settings().metrics_host, settings().metrics_port)
    except StoreError as error:
        log.critical("The courier can't start. %s", error)
        sys.exit(1)
    except OSError as error:
        log.critical("The courier can't serve metrics on port %d: %s", settings().metrics_port, error.strerror)
        sys.exit(1)
    except Exception:
        log.critical("The courier can't start.", exc_info=True)
        sys.exit(1)
    threading.Thread(target=_reconcile, args=(_ledger,), name="reconcile", daemon=True).start()


@worker_shutting_down.connect
def _end(**_: Any) -> None:
    _stopping.set()


def _reconcile(ledger: Ledger) -> None:
    """Reconcile round after round, through any outage of the store or Redis."""
    reconciler, name = Reconciler(ledger), uuid.uuid4().hex[:8]
    while not _stopping.is_set():
        at_end = True
        try:
            at_end = reconciler.round()
            LAST_ROUND.set_to_current_time()
            ledger.redis.couriers.announce(name, _ALIVE_SECONDS)
        except (StoreError, RedisError) as error:
            log.warning("reconciling was put off: %s", type(error).__name__)
        except Exception:
            log.exception("reconciling failed")
        _stopping.wait(settings().reconcile_every if at_end else _BREATH)


@app.task(name=DELIVER_TASK)
def deliver(delivery: str) -> None:
    """Have a webhook sent that is due."""
    assert _dispatcher is not None
    _dispatcher.dispatch(delivery)


@app.task(name=ADVANCE_BATCH_TASK)
def advance_batch(batch: str) -> None:
    """Submit more items of a batch, or end it."""
    assert _ledger is not None
    ledgers.advance_batch(_ledger, batch)


@app.task(name=ERASE_BATCH_TASK)
def erase_batch(batch: str) -> None:
    """Erase a batch whose erasure was announced."""
    assert _ledger is not None
    ledgers.end_batch_erasure(_ledger, batch)
