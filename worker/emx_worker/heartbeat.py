"""Keeps the leases of the jobs in hand while the backend makes progress, and learns of cancellations."""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from emx_shared.redis_state import RedisState

log = logging.getLogger("emx.worker")


@dataclass(frozen=True)
class _HeldLease:
    job: str
    cancelled: threading.Event = field(default_factory=threading.Event)


class Heartbeat:
    """A thread that extends the leases of the jobs in hand, and shows that this worker is alive.

    When the backend hangs, it does neither, so that the leases lapse and another worker takes the jobs.
    """

    def __init__(
        self, redis_state: RedisState, lease: float, hang: float, progress: Callable[[], int], name: str
    ) -> None:
        """Start the thread.

        Args:
            redis_state: where leases are kept.
            lease: duration of a lease in seconds; the thread beats five times in each.
            hang: seconds without progress, with jobs in hand, after which the backend counts as hung.
            progress: counts the backend's steps.
            name: of this worker.
        """
        self._redis, self._lease, self._hang, self._progress, self._name = redis_state, lease, hang, progress, name
        self._held: dict[str, _HeldLease] = {}
        self._lock = threading.Lock()
        self._seen, self._seen_at = progress(), time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def hold(self, job: str, token: str) -> threading.Event:
        """Keep a job's lease from now on.

        Returns:
            An event that is set when the job is cancelled or the lease is lost.
        """
        lease = _HeldLease(job)
        with self._lock:
            self._held[token] = lease
        return lease.cancelled

    def release(self, token: str) -> None:
        """Stop keeping the lease with this token."""
        with self._lock:
            self._held.pop(token, None)

    def close(self) -> None:
        """Stop the thread, and wait for its end."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._beat()
            except Exception:  # without a heartbeat, other workers would take every job in hand
                log.exception("a heartbeat failed")
            if self._stop.wait(self._lease / 5):
                return

    def _beat(self) -> None:
        with self._lock:
            held = dict(self._held)
        if self._hung(bool(held)):
            return
        self._redis.workers.announce(self._name, math.ceil(self._lease))
        cancelled = self._redis.cancellations.requested_among([lease.job for lease in held.values()])
        for token, lease in held.items():
            if lease.job in cancelled or not self._redis.leases.extend(lease.job, token):
                lease.cancelled.set()
            with self._lock:
                ended_meanwhile = token not in self._held
            if ended_meanwhile:  # and was given back before it was extended
                self._redis.leases.release(lease.job, token)

    def _hung(self, busy: bool) -> bool:
        progress, now = self._progress(), time.monotonic()
        if progress != self._seen or not busy:
            self._seen, self._seen_at = progress, now
        return now - self._seen_at > self._hang
