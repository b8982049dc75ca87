"""Keeps the leases of the jobs in hand, as long as the engine gets on, and learns of cancellations."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from shared.index import Index

_ALIVE_SECONDS = 15


@dataclass
class _Hold:
    token: str
    cancelled: threading.Event = field(default_factory=threading.Event)


class Heartbeat:
    """One thread. ``progress`` counts the engine's steps: when it stands still for ``hang`` seconds with jobs in
    hand, the leases are left to lapse, so that another worker takes them."""

    def __init__(self, index: Index, lease: float, hang: float, progress: Callable[[], int], name: str) -> None:
        self._index, self._lease, self._hang, self._progress, self._name = index, lease, hang, progress, name
        self._holds: dict[str, _Hold] = {}
        self._lock = threading.Lock()
        self._seen = (progress(), time.monotonic())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def hold(self, job: str, token: str) -> threading.Event:
        """Keep this lease from now on. The event is set when the job is cancelled or the lease is lost."""
        with self._lock:
            if not self._holds:
                self._seen = (self._progress(), time.monotonic())
            self._holds[job] = _Hold(token)
            return self._holds[job].cancelled

    def let_go(self, job: str) -> None:
        with self._lock:
            self._holds.pop(job, None)

    @property
    def hung(self) -> bool:
        return bool(self._holds) and time.monotonic() - self._seen[1] > self._hang

    def close(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._lease / 5):
            if self._progress() != self._seen[0]:
                self._seen = (self._progress(), time.monotonic())
            if not self.hung:
                self._beat()

    def _beat(self) -> None:
        self._index.worker_alive(self._name, _ALIVE_SECONDS)
        with self._lock:
            holds = dict(self._holds)
        cancelled = self._index.asked_to_cancel(list(holds))
        for job, hold in holds.items():
            if job in cancelled or not self._index.extend_lease(job, hold.token):
                hold.cancelled.set()
