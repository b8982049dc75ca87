"""Publishes the text of reports while they are written, for clients that watch a job."""

import threading
from collections.abc import Callable

from emx_shared.redis_state import RedisState

POLL_SECONDS = 0.25
"""Pause between two looks at the texts of the jobs in hand."""


class TextPublisher:
    """A thread that publishes each new piece of text of the jobs that somebody watches."""

    def __init__(self, redis_state: RedisState, partial_texts: Callable[[], dict[str, str]]) -> None:
        """Start the thread.

        Args:
            redis_state: where the text is published.
            partial_texts: returns the text so far of each job in hand, by the job's id.
        """
        self._redis, self._partial_texts = redis_state, partial_texts
        self._published: dict[str, int] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="text-publisher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, and wait for its end."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(POLL_SECONDS):
            texts = self._partial_texts()
            self._published = {job: length for job, length in self._published.items() if job in texts}
            for job in self._redis.live_text.watched_among(list(texts)):
                self._publish(job, texts[job])

    def _publish(self, job: str, text: str) -> None:
        published = self._published.get(job, 0)
        if len(text) < published:
            published = 0  # the report was begun again
        if len(text) > published:
            self._redis.live_text.append_text(job, text[published:], published)
            self._published[job] = len(text)
