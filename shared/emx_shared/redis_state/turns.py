"""Turns: the tenants of a queue are served one job each in turn, whoever floods it."""

from typing import Any

from emx_shared.redis_state.redis_connection import RedisConnection


class Turns:
    """For each queue the round of tenants that wait, and for each tenant the line of its jobs."""

    def __init__(self, connection: RedisConnection) -> None:
        self._redis = connection
        self._join = connection.script("join_turns")
        self._take = connection.script("take_turn")
        self._ahead = connection.script("jobs_ahead")
        self._count = connection.script("count_turns")

    def join(self, job: str, queue: str, tenant: str, together: Any) -> None:
        """Have a pipeline put a job at the end of its tenant's line, unless it is there. Nobody has started it."""
        keys = [line(queue, tenant), f"round:{queue}", f"started:{job}", "turn-number"]
        self._join(keys=keys, args=[job, tenant], client=together)

    def take(self, queue: str) -> str | None:
        """Return the job whose turn it is, taken out of its line; None if no job is known to wait."""
        found = self._redis.attempt(lambda: self._take(keys=[f"round:{queue}"], args=[queue]), None)
        return None if found is None else str(found)

    def ahead(self, job: str, queue: str, tenant: str) -> int | None:
        """Return how many jobs of the queue come before this one; None if it doesn't wait, or nothing is known."""
        keys = [line(queue, tenant), f"round:{queue}"]
        found = self._redis.attempt(lambda: self._ahead(keys=keys, args=[job, queue]), None)
        return None if found is None else int(found)

    def waiting(self, queues: tuple[str, ...], tenant: str, queue: str) -> tuple[int, int]:
        """Return how many jobs of a tenant wait in any of ``queues``, and how many messages are in ``queue``."""

        def count() -> tuple[int, int]:
            asked = self._redis.client.pipeline(transaction=False)
            for name in queues:
                asked.zcard(line(name, tenant))
            *waiting, messages = asked.llen(queue).execute()
            return sum(waiting), int(messages)

        return self._redis.attempt(count, (0, 0))

    def messages_missing(self, queue: str, most: int) -> tuple[int, str]:
        """Return how many messages a queue has less than turns, up to ``most``, and a job that waits in it.

        Raises RedisError.
        """
        turns, messages, job = self._count(keys=[f"round:{queue}", queue], args=[queue])
        return max(min(turns, most) - messages, 0), job

    def queue_depths(self, queues: tuple[str, ...]) -> dict[str, int]:
        """Return the number of messages in each queue; empty while Redis is unavailable."""
        return self._redis.attempt(lambda: {queue: int(self._redis.client.llen(queue)) for queue in queues}, {})


def line(queue: str, tenant: str) -> str:
    """Return the key of a tenant's line: a sorted set, by the order of joining."""
    return f"line:{queue}:{tenant}"
