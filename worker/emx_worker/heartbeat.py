"""Keeps the leases of the jobs in hand, as long as the engine gets on, and learns of cancellations."""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from emx_shared.redis_state import RedisState

log = logging.getLogger("emx.worker")


@dataclass(frozen=True)
class _Hold:
    job: str
    cancelled: threading.Event = field(default_factory=threading.Event)


class Heartbeat:
    """One thread, which also shows that this worker is alive.

    Parameters:
        lease: seconds; it beats five times in each.
        hang: seconds. When ``progress`` stands still for so long with jobs in hand, their leases are left to
            lapse, so that another worker takes them.
        progress: counts the engine's steps.
        name: of this worker.
    """

    def __init__(
        self, redis_state: RedisState, lease: float, hang: float, progress: Callable[[], int], name: str
    ) -> None:
        self._redis, self._lease, self._hang, self._progress, self._name = redis_state, lease, hang, progress, name
        self._holds: dict[str, _Hold] = {}
        self._lock = threading.Lock()
        self._seen, self._seen_at = progress(), time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def hold(self, job: str, token: str) -> threading.Event:
        """Keep this lease from now on. The event is set when the job is cancelled or the lease is lost."""
        hold = _Hold(job)
        with self._lock:
            self._holds[token] = hold
        return hold.cancelled

    def let_go(self, token: str) -> None:
        with self._lock:
            self._holds.pop(token, None)

    def close(self) -> None:
        """Returns when the thread has ended."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._beat()
            except Exception:  # without a heartbeat, every job in hand would be taken for dead
                log.exception("a heartbeat failed")
            if self._stop.wait(self._lease / 5):
                return

    def _beat(self) -> None:
        with self._lock:
            holds = dict(self._holds)
        if self._hung(bool(holds)):
            return
        self._redis.workers.announce(self._name, math.ceil(self._lease))
        cancelled = self._redis.cancellations.requested_among([hold.job for hold in holds.values()])
        for token, hold in holds.items():
            if hold.job in cancelled or not self._redis.leases.extend(hold.job, token):
                hold.cancelled.set()

    def _hung(self, busy: bool) -> bool:
        progress, now = self._progress(), time.monotonic()
        if progress != self._seen or not busy:
            self._seen, self._seen_at = progress, now
        return now - self._seen_at > self._hang
