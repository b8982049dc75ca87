"""The worker's Celery application: ``python -P -m emx_worker`` runs it.

One process holds one model. Each thread of the pool takes one job and waits for the backend.
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
from emx_worker.job_runner import JobRunner
from emx_worker.model.checkpoint import ModelError

log = logging.getLogger("emx.worker")

_BESIDE = 8
"""Threads beside those that fill the slots, to run stat jobs while these are taken."""

app: Celery = celery_app("worker", settings())
app.conf.update(
    task_queues=[Queue(name) for name in READ_QUEUES],
    worker_pool="threads",
    worker_concurrency=settings().slots + _BESIDE,
)
_runner: JobRunner | None = None


@celeryd_init.connect
def _name(instance: Any = None, **_: Any) -> None:
    instance.hostname = f"worker-{uuid.uuid4().hex[:8]}@{socket.gethostname()}"


@celeryd_after_setup.connect
def _load(**_: Any) -> None:
    """Load the model once, after logging is set up and before the first message is taken.

    Celery only logs what a signal's receiver raises, and continues; a worker without a model must not.
    """
    global _runner
    try:
        _runner = JobRunner.open(settings())
        serve_metrics(settings().metrics_host, settings().metrics_port)
    except (ModelError, StoreError) as error:
        log.critical("The worker can't start. %s", error)
        sys.exit(1)
    except Exception:
        log.critical("The worker can't start.", exc_info=True)
        sys.exit(1)


@worker_shutting_down.connect
def _drain(**_: Any) -> None:
    if _runner:
        _runner.drain()


@worker_shutdown.connect
def _close(**_: Any) -> None:
    if _runner:
        _runner.close()


@app.task(name=READ_TASK)
def read(job: str, queue: str) -> None:
    """Run the job whose turn it is in the queue, or this job if the turns are unknown."""
    assert _runner is not None, "the model is loaded before any message is taken"
    _runner.read(job, queue)


__all__ = ["app", "read"]
