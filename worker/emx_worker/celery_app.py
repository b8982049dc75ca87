"""The Celery side of a worker: ``python -P -m emx_worker``.

One process holds one model. Each of the pool's threads takes one job and waits for the engine.
"""

import logging
import socket
import sys
import uuid
from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup, celeryd_init, worker_shutdown, worker_shutting_down
from kombu import Queue

from emx_shared.messaging import READ_QUEUES, READ_TASK, celery_app
from emx_shared.prometheus_metrics import serve_metrics
from emx_shared.settings import settings
from emx_shared.store import StoreError
from emx_worker.job_runner import Desk
from emx_worker.model.loading import ModelError

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


@celeryd_after_setup.connect
def _load(**_: Any) -> None:
    """Load the model once, after logging was set up, and before the first message is taken.

    Celery logs what a signal's receiver raises, and goes on; a worker without a model must not.
    """
    global _desk
    try:
        _desk = Desk.open(settings())
        serve_metrics(settings().metrics_host, settings().metrics_port)
    except (ModelError, StoreError) as error:
        log.critical("The worker can't start. %s", error)
        sys.exit(1)
    except Exception:
        log.critical("The worker can't start.", exc_info=True)
        sys.exit(1)


@worker_shutting_down.connect
def _shut(**_: Any) -> None:
    if _desk:
        _desk.close()


@worker_shutdown.connect
def _leave(**_: Any) -> None:
    if _desk:
        _desk.leave()


@app.task(name=READ_TASK)
def read(job: str, queue: str) -> None:
    """Read the study of this queue whose turn it is, or else this one, and write its outcome."""
    assert _desk is not None, "the model is loaded before any message is taken"
    _desk.read(job, queue)


__all__ = ["app", "read"]
