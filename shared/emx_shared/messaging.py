"""Celery as the ledger sees it: queue names and the messages that are sent."""

import sys
from typing import Any, NoReturn, Protocol

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from emx_shared.redis_state.circuit_breaker import CircuitBreaker
from emx_shared.redis_state.redis_connection import ANSWER_TIMEOUT, CONNECT_TIMEOUT
from emx_shared.settings import LogLevel, Settings

STAT_QUEUE = "stat"
READ_QUEUES = (STAT_QUEUE, "routine", "backlog")
"""In the strict order in which workers empty them."""

COURIER_QUEUE = "courier"

READ_TASK = "worker.read"
DELIVER_TASK = "courier.deliver"
ADVANCE_BATCH_TASK = "courier.advance_batch"
ERASE_BATCH_TASK = "courier.erase_batch"

_HINT_EXPIRES = 60
"""Seconds."""


class QueueUnavailable(Exception):
    """The broker can't be reached."""


class Queue(Protocol):
    """The messages that the ledger sends.

    ``enqueue_read`` raises QueueUnavailable. The others are hints, which the reconciler repeats, and never raise.
    """

    def enqueue_read(self, fallback_job: str, priority: str) -> None:
        """Let a worker read the job whose turn it is in this queue; ``fallback_job`` where no turn is known."""

    def deliver(self, delivery: str) -> None:
        """Let a courier try a webhook."""

    def advance_batch(self, batch: str) -> None:
        """Let a courier submit more items of a batch, or end it."""

    def erase_batch(self, batch: str) -> None:
        """Let a courier erase a batch whose erasure was announced."""


def celery_app(name: str, settings: Settings) -> Celery:
    """Return an application of the one broker. It has no result backend: outcomes are in the ledger."""
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
            "socket_timeout": ANSWER_TIMEOUT,
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "max_retries": 0,  # of a connection, for which whoever sends would wait six seconds
        },
        task_serializer="json",
        accept_content=["json"],
    )
    return app


def run_celery_worker(app: Celery, log_level: LogLevel) -> NoReturn:
    """Run this process as a Celery worker of ``app`` until it is stopped, and exit with Celery's status.

    Started this way rather than by ``celery -A``, which puts the working directory on Python's module path.
    """
    quiet = log_level in ("warning", "error")
    worker = app.Worker(quiet=quiet, loglevel=log_level.upper(), without_gossip=True, without_mingle=True)
    worker.start()
    sys.exit(worker.exitcode)


class CeleryQueue:
    """Sends the ledger's messages through Celery, each tried once, and not while Redis is known to hang."""

    def __init__(self, app: Celery, breaker: CircuitBreaker) -> None:
        self._app, self._breaker = app, breaker

    def enqueue_read(self, fallback_job: str, priority: str) -> None:
        """See ``Queue``. Raises QueueUnavailable."""
        self._send(READ_TASK, [fallback_job, priority], priority)

    def deliver(self, delivery: str) -> None:
        """See ``Queue``."""
        self._hint(DELIVER_TASK, delivery)

    def advance_batch(self, batch: str) -> None:
        """See ``Queue``."""
        self._hint(ADVANCE_BATCH_TASK, batch)

    def erase_batch(self, batch: str) -> None:
        """See ``Queue``."""
        self._hint(ERASE_BATCH_TASK, batch)

    def _hint(self, task: str, subject: str) -> None:
        try:
            self._send(task, [subject], COURIER_QUEUE, expires=_HINT_EXPIRES)
        except QueueUnavailable:
            return

    def _send(self, task: str, args: list[str], queue: str, **options: Any) -> None:
        try:
            with self._breaker.call():
                self._app.send_task(task, args=args, queue=queue, retry=False, **options)
        except (OperationalError, RedisError, OSError) as error:
            raise QueueUnavailable from error
