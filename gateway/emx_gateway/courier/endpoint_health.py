"""Which endpoints answer, and when those that don't are tried again."""

import threading
import time
from dataclasses import dataclass

FAILURES_IN_A_ROW = 3
"""Failures after which an endpoint is paused: each then holds a thread for as long as a try may take."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0
"""Seconds, doubling from one to the other."""


@dataclass
class _Endpoint:
    failures: int = 0
    paused_until: float = 0.0
    probing: bool = False


class EndpointHealth:
    """A breaker for each endpoint, as far as this courier has seen. Any number of threads may use it."""

    def __init__(self) -> None:
        self._failing: dict[str, _Endpoint] = {}
        self._lock = threading.Lock()

    def seconds_paused(self, endpoint: str) -> float:
        """Return for how many seconds nothing should be sent to an endpoint; 0 if a try may begin now.

        Of an endpoint whose pause is over, one caller may try; the others wait for how that goes.
        """
        with self._lock:
            found = self._failing.get(endpoint)
            if found is None:
                return 0
            left = max(found.paused_until - time.monotonic(), 0)
            if left or found.failures < FAILURES_IN_A_ROW:
                return left
            if found.probing:
                return FIRST_PAUSE
            found.probing = True
            return 0

    def untried(self, endpoint: str) -> None:
        """Note that a try which ``seconds_paused`` allowed wasn't made."""
        with self._lock:
            if found := self._failing.get(endpoint):
                found.probing = False

    def succeeded(self, endpoint: str) -> None:
        """Note that an endpoint answered as it should."""
        with self._lock:
            self._failing.pop(endpoint, None)

    def failed(self, endpoint: str, retry_after: float | None) -> None:
        """Note that an endpoint didn't; ``retry_after`` are the seconds that it asked to be left alone for."""
        with self._lock:
            found = self._failing.setdefault(endpoint, _Endpoint())
            found.failures += 1
            found.probing = False
            pause = retry_after or 0.0
            if found.failures >= FAILURES_IN_A_ROW:
                doubled = FIRST_PAUSE * 2 ** min(found.failures - FAILURES_IN_A_ROW, 20)
                pause = max(pause, min(doubled, LONGEST_PAUSE))
            found.paused_until = time.monotonic() + pause
