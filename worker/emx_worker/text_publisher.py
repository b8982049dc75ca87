"""Tells those who watch a job what is being written of its report."""

import threading
from collections.abc import Callable

from emx_shared.redis_state import RedisState

EVERY = 0.25
"""Seconds between looks at the texts under way."""


class Teller:
    """A thread that passes on new text, of watched jobs alone."""

    def __init__(self, redis_state: RedisState, written: Callable[[], dict[str, str]]) -> None:
        """``written`` gives the text so far of each job in hand."""
        self._redis, self._written = redis_state, written
        self._told: dict[str, int] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="teller", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(EVERY):
            texts = self._written()
            self._told = {job: told for job, told in self._told.items() if job in texts}
            for job in self._redis.live_text.watched_among(list(texts)):
                self._tell(job, texts[job])

    def _tell(self, job: str, text: str) -> None:
        told = self._told.get(job, 0)
        if len(text) < told:
            told = 0  # it was begun again
        if len(text) > told:
            self._redis.live_text.append_text(job, text[told:], told)
            self._told[job] = len(text)
