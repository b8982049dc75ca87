"""The Celery side of a worker: ``celery -A worker.app worker --pool threads``.

One process holds one model. Each of the pool's threads takes one job and waits for the engine.
"""

import logging
import socket
import uuid
from typing import Any

from celery import Celery
from celery.signals import celeryd_init, worker_init, worker_shutting_down
from kombu import Queue

from shared.metrics import serve_metrics
from shared.queue import READ, READ_QUEUES, celery_app
from shared.settings import settings
from worker.reading import Desk

log = logging.getLogger("emx.worker")

app: Celery = celery_app("worker", settings())
app.conf.update(
    task_queues=[Queue(name) for name in READ_QUEUES],
    worker_pool="threads",
    worker_concurrency=settings().slots,
)
_desk: Desk | None = None


@celeryd_init.connect
def _name(instance: Any = None, **_: Any) -> None:
    instance.hostname = f"worker-{uuid.uuid4().hex[:8]}@{socket.gethostname()}"


@worker_init.connect
def _load(**_: Any) -> None:
    """Load the model once, before the first message is taken."""
    global _desk
    _desk = Desk.open(settings())
    serve_metrics(settings().metrics_host, settings().metrics_port)


@worker_shutting_down.connect
def _shut(**_: Any) -> None:
    if _desk:
        _desk.close()


@app.task(name=READ)
def read(job: str) -> None:
    """Read one study and write its outcome."""
    assert _desk is not None, "the model is loaded before any message is taken"
    _desk.read(job)


__all__ = ["app", "read"]
