"""Celery as the ledger sees it: queue names and the messages that are sent."""

import sys
from typing import Any, NoReturn, Protocol

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from emx_shared.settings import Settings

READ_QUEUES = ("stat", "routine", "backlog")
"""In the strict order in which workers empty them."""

COURIER_QUEUE = "courier"
READ, DELIVER, EXPAND = "worker.read", "courier.deliver", "courier.expand"
_HINT_EXPIRES = 60


class QueueAway(Exception):
    """The broker can't be reached."""


class Queue(Protocol):
    """``read`` raises QueueAway; the other two are hints, which the reconciler repeats, and never raise."""

    def read(self, job: str, priority: str) -> None: ...

    def deliver(self, delivery: str) -> None: ...

    def expand(self, batch: str) -> None: ...


def celery_app(name: str, settings: Settings) -> Celery:
    """An application of the one broker. No result backend: outcomes are in the ledger."""
    app = Celery(name, broker=settings.redis, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_transport_options={
            "queue_order_strategy": "priority",
            "visibility_timeout": 3600,
            "socket_timeout": 10,
            "socket_connect_timeout": 2,
        },
        task_serializer="json",
        accept_content=["json"],
    )
    return app


def run_celery_worker(app: Celery) -> NoReturn:
    """Run this process as a Celery worker of ``app`` until it is stopped, and exit with Celery's status.

    Started this way rather than by ``celery -A``, which puts the working directory on Python's module path.
    """
    worker = app.Worker(quiet=True, loglevel="WARNING", without_gossip=True, without_mingle=True)
    worker.start()
    sys.exit(worker.exitcode)


class CeleryQueue:
    def __init__(self, app: Celery) -> None:
        self._app = app

    def read(self, job: str, priority: str) -> None:
        self._send(READ, [job, priority], priority)

    def deliver(self, delivery: str) -> None:
        self._hint(DELIVER, delivery)

    def expand(self, batch: str) -> None:
        self._hint(EXPAND, batch)

    def _hint(self, task: str, what: str) -> None:
        try:
            self._send(task, [what], COURIER_QUEUE, expires=_HINT_EXPIRES)
        except QueueAway:
            return

    def _send(self, task: str, args: list[str], queue: str, **options: Any) -> None:
        try:
            self._app.send_task(task, args=args, queue=queue, retry=False, **options)
        except (OperationalError, RedisError, OSError) as error:
            raise QueueAway from error
