"""The gateway's Celery side: ``celery -A gateway.courier worker``. Webhooks, batches and reconciling.

Safe to run twice: whatever it does may be repeated by anyone.
"""

import json
import logging
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import httpx
from celery import Celery
from celery.signals import celeryd_init, worker_init, worker_shutting_down
from kombu import Queue
from redis.exceptions import RedisError
from standardwebhooks.webhooks import Webhook

from gateway.resources import job_resource
from shared import ledger as ledgers
from shared.ledger import Answer, Ledger, Reconciler
from shared.ledger.records import Delivery
from shared.metrics import DELIVERIES, LAST_ROUND, serve_metrics
from shared.opening import open_ledger
from shared.queue import COURIER_QUEUE, DELIVER, EXPAND, celery_app
from shared.settings import settings
from shared.store import StoreError
from shared.webhooks import ForbiddenTarget, check_target

log = logging.getLogger("emx.courier")

app: Celery = celery_app("courier", settings())
app.conf.update(task_queues=[Queue(COURIER_QUEUE)], worker_pool="threads", worker_concurrency=8)
_stopping = threading.Event()
_ledger: Ledger | None = None


@celeryd_init.connect
def _name(instance: Any = None, **_: Any) -> None:
    instance.hostname = f"courier-{uuid.uuid4().hex[:8]}"


@worker_init.connect
def _begin(**_: Any) -> None:
    global _ledger
    _ledger = open_ledger(settings(), "courier")
    serve_metrics(settings().metrics_host, settings().metrics_port)
    threading.Thread(target=_reconcile, args=(_ledger,), name="reconcile", daemon=True).start()


@worker_shutting_down.connect
def _end(**_: Any) -> None:
    _stopping.set()


def _reconcile(ledger: Ledger) -> None:
    """Round after round, whatever the store or Redis is going through."""
    reconciler = Reconciler(ledger)
    while not _stopping.wait(settings().reconcile_every):
        try:
            reconciler.round()
            LAST_ROUND.set_to_current_time()
        except (StoreError, RedisError) as error:
            log.warning("reconciling was put off: %s", type(error).__name__)
        except Exception:
            log.exception("reconciling stumbled")


@app.task(name=DELIVER)
def deliver(delivery: str) -> None:
    """Try a webhook that is due; only one courier at a time, as far as Redis can tell."""
    assert _ledger is not None
    token = uuid.uuid4().hex
    if not _ledger.index.take_lease(f"delivery:{delivery}", token):
        return
    try:
        tried = ledgers.deliver(_ledger, delivery, lambda owed: send(_ledger, owed))
        if tried:
            DELIVERIES.labels(tried.status).inc()
    finally:
        _ledger.index.release_lease(f"delivery:{delivery}", token)


@app.task(name=EXPAND)
def expand(batch: str) -> None:
    """Bring a batch forward."""
    assert _ledger is not None
    ledgers.expand(_ledger, batch)


def send(ledger: Ledger, owed: Delivery) -> Answer:
    """POST one event, signed after Standard Webhooks. No redirect is followed, no answer body read."""
    chosen = ledger.settings
    body = json.dumps(_event(ledger, owed), separators=(",", ":"))
    now = int(time.time())
    try:
        check_target(owed.url, chosen.webhook_allow_private)
        secret = Webhook(chosen.webhook_secret or "")
        headers = {
            "content-type": "application/json",
            "user-agent": "ExplainMyXray",
            "webhook-id": owed.id,
            "webhook-timestamp": str(now),
            "webhook-signature": secret.sign(owed.id, datetime.fromtimestamp(now, UTC), body),
        }
        with httpx.stream("POST", owed.url, content=body, headers=headers, timeout=chosen.webhook_timeout) as got:
            return Answer(got.status_code)
    except ForbiddenTarget:
        return Answer(None, "forbidden target")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Answer(None, type(error).__name__)


def _event(ledger: Ledger, owed: Delivery) -> dict[str, Any]:
    request, outcome = ledger.request(owed.job), ledger.outcome(owed.job)
    data: dict[str, Any] = {"id": owed.job}
    if request and outcome:
        if request.kind == "batch":
            data |= {"state": outcome.state, "counts": outcome.counts}
        else:
            data |= job_resource(ledger, request, outcome).model_dump(mode="json")
    return {"type": owed.event, "timestamp": owed.created_at.isoformat(), "data": data}
