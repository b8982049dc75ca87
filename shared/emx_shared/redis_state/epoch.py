"""Epoch: a key that exists for as long as Redis has its memory."""

import uuid
from typing import Literal

from redis.exceptions import RedisError

from emx_shared.redis_state.redis_connection import RedisConnection


class Epoch:
    """Tells a Redis that lost its memory, or is new, from one that can be trusted."""

    def __init__(self, connection: RedisConnection) -> None:
        self._redis = connection

    def current(self) -> str | Literal["unavailable"] | None:
        """Return the epoch's name; None if Redis answers and has lost its memory, or is new."""
        try:
            found = self._redis.client.get("emx:epoch")
            return str(found) if found else None
        except RedisError:
            return "unavailable"

    def begin(self) -> None:
        """Start an epoch, unless one has started."""
        self._redis.attempt(lambda: self._redis.client.set("emx:epoch", uuid.uuid4().hex, nx=True), None)
