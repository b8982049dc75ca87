"""What every operation of the ledger works on."""

from dataclasses import dataclass

from emx_shared.ledger import object_keys
from emx_shared.ledger.records import Delivery, Erasing, JobState, OpenMarker, Outcome, Request
from emx_shared.messaging import Queue, QueueAway
from emx_shared.redis_state import RedisState
from emx_shared.settings import Settings
from emx_shared.store import NotFound, Store


@dataclass(frozen=True)
class Ledger:
    store: Store
    redis: RedisState
    queue: Queue
    settings: Settings

    def request(self, job: str) -> Request | None:
        return Request.model_validate_json(data) if (data := self._find(object_keys.request(job))) else None

    def outcome(self, job: str) -> Outcome | None:
        return Outcome.model_validate_json(data) if (data := self._find(object_keys.outcome(job))) else None

    def delivery(self, id: str) -> Delivery | None:
        """A webhook that is owed, or how it ended."""
        data = self._find(object_keys.delivery(id)) or self._find(object_keys.outbox(id))
        return Delivery.model_validate_json(data) if data else None

    def open_marker(self, job: str) -> OpenMarker:
        data = self._find(object_keys.open_marker(job))
        return OpenMarker.model_validate_json(data) if data else OpenMarker()

    def erasing(self, job: str) -> Erasing | None:
        return Erasing.model_validate_json(data) if (data := self._find(object_keys.erasing(job))) else None

    def input(self, request: Request) -> bytes:
        """The bytes as received. Raises NotFound once they were erased."""
        return self.store.get(object_keys.job_input(request.id, request.input_sha256))

    def state(self, job: str, outcome: Outcome | None) -> JobState:
        """Terminal states come from the store alone; Redis tells running from queued, while it is there."""
        if outcome:
            return outcome.state
        return JobState.RUNNING if self.redis.leases.is_held(job) else JobState.QUEUED

    def enqueue(self, request: Request) -> bool:
        """Put a message into the job's queue. False if Redis is away: reconciling will do it later.

        The message stands for any one job of the queue: tenants take turns (see ``Turns.take``).

        The mark comes after the message: lost in between, the job is merely enqueued once more, and a
        message too many does no harm.
        """
        try:
            self.redis.turns.join(request.id, request.priority, request.tenant)
            self.queue.read(request.id, request.priority)
            self.redis.marks.mark_enqueued(request.id, request.priority, request.tenant)
        except QueueAway:
            return False
        return True

    def _find(self, key: str) -> bytes | None:
        try:
            return self.store.get(key)
        except NotFound:
            return None
