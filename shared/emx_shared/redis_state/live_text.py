"""Live text: a report as it is written, for those who watch its job."""

from typing import Any

from emx_shared.redis_state.job_marks import NEWS_CHANNEL
from emx_shared.redis_state.redis_connection import RedisConnection

_LIFETIME = 3600
"""Seconds that text is kept after the last piece."""

_MOST_PIECES = 2000
_WATCHED_FOR = 15
"""Seconds for which one call of ``watch`` counts."""


class LiveText:
    """For each watched job a Redis stream of the pieces of its report."""

    def __init__(self, connection: RedisConnection) -> None:
        self._redis = connection

    def watch(self, job: str) -> None:
        """Ask for the job's text as it is written, for the next 15 seconds."""
        self._redis.attempt(lambda: self._redis.client.set(f"watched:{job}", 1, ex=_WATCHED_FOR), None)

    def watched_among(self, jobs: list[str]) -> set[str]:
        """Return those of the jobs that somebody watches."""
        return self._redis.flagged("watched", jobs)

    def append_text(self, job: str, text: str, offset: int) -> None:
        """Add a piece of the report's text, which starts after ``offset`` characters, and publish it."""

        def append() -> None:
            client, piece = self._redis.client, {"text": text, "offset": offset}
            client.xadd(f"text:{job}", piece, maxlen=_MOST_PIECES, approximate=True)
            client.expire(f"text:{job}", _LIFETIME)
            client.publish(NEWS_CHANNEL, f"{job} text")

        self._redis.attempt(append, None)

    def text_since(self, job: str, after: str) -> list[tuple[str, dict[str, str | int]]]:
        """Return the pieces after a stream id, each with its own id and its ``text`` and ``offset``."""
        found: list[Any] = self._redis.attempt(lambda: self._redis.client.xrange(f"text:{job}", f"({after}"), [])
        return [(id, {"offset": int(piece["offset"]), "text": piece["text"]}) for id, piece in found]

    def forget(self, job: str) -> None:
        """Delete an erased job's text."""
        self._redis.attempt(lambda: self._redis.client.delete(f"text:{job}"), None)
