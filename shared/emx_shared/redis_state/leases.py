"""Leases: at most one process works on a job at a time, as far as Redis can tell."""

from emx_shared.redis_state.redis_connection import RedisConnection


class Leases:
    """Locks that lapse by themselves, each held under its owner's token."""

    def __init__(self, connection: RedisConnection, seconds: float) -> None:
        """Set how long a lease lasts unless it is renewed, in seconds."""
        self._redis = connection
        self._milliseconds = int(seconds * 1000)
        self._extend = connection.script("extend_lease")
        self._release = connection.script("release_lease")

    def take(self, name: str, token: str, seconds: float | None = None) -> bool:
        """Take a free lease, or one that this token holds: a former try may have got it unheard.

        Args:
            name: what is leased: a job's id, or ``delivery:ID``, ``erasing:ID`` and the like.
            token: the owner's, random.
            seconds: how long it lasts; None for the usual.

        Returns:
            False if somebody holds it.

        Raises:
            RedisError: without Redis nobody can tell who works on what.
        """
        lasts = self._milliseconds if seconds is None else int(seconds * 1000)
        return bool(self._extend(keys=[f"lease:{name}"], args=[token, lasts]))

    def extend(self, name: str, token: str) -> bool:
        """Renew a lease, or take it anew if Redis forgot it. Return False if somebody else holds it."""
        args = [token, self._milliseconds]
        return bool(self._redis.attempt(lambda: self._extend(keys=[f"lease:{name}"], args=args), 1))

    def release(self, name: str, token: str) -> None:
        """Give a lease back, if this token holds it."""
        self._redis.attempt(lambda: self._release(keys=[f"lease:{name}"], args=[token]), None)

    def is_held(self, name: str) -> bool:
        """Return whether anybody holds the lease; False while Redis is unavailable."""
        return bool(self._redis.attempt(lambda: self._redis.client.exists(f"lease:{name}"), 0))

    def held_among(self, names: list[str]) -> set[str]:
        """Return those of the names whose lease somebody holds."""
        return self._redis.flagged("lease", names)
