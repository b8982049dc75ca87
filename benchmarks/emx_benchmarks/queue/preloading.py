"""Waiting jobs by the hundred thousand, written straight to where the ledger keeps them."""

import hashlib
import json
import os
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from emx_shared.contracts.states import JobState
from emx_shared.ledger import object_keys
from emx_shared.ledger.records import Failure, JobRecord, OpenMarker, Outcome
from emx_shared.messaging import CeleryQueue, celery_app
from emx_shared.redis_state import RedisState
from emx_shared.redis_state.circuit_breaker import CircuitBreaker
from emx_shared.redis_state.turns import line
from emx_shared.settings import Settings
from emx_shared.store import sharding

QUEUE, TENANT = "backlog", "default"
FAILED = 200
"""Jobs that have failed, in each system."""

_AT_ONCE = 1000


class Preloader:
    """Fills a store's folder and a Redis as the ledger would have done, but in seconds."""

    def __init__(self, store: Path, url: str, image: bytes) -> None:
        """Set what is filled, and the one image that all jobs have. Nobody may read the queue yet."""
        self._store, self._redis = store, RedisState(url)
        self._image = store / "image"
        self._image.write_bytes(image)
        self._sha256 = hashlib.sha256(image).hexdigest()
        self._now = datetime.now(UTC)
        self._folders: set[str] = set()
        CeleryQueue(celery_app("bench", Settings(redis=url)), CircuitBreaker()).enqueue_read("sample", QUEUE)
        self._message: str = self._redis.connection.client.lpop(QUEUE)

    def fail(self, jobs: int = FAILED) -> None:
        """Add jobs that failed before all others were submitted."""
        failure = Failure(code="bad-image", message="This is no image.")
        for number in range(jobs):
            job = self._record(self._now - timedelta(hours=2, seconds=number))
            outcome = Outcome(state=JobState.FAILED, failure=failure, finished_at=self._now)
            self._write(object_keys.record(job.id), job.dump())
            self._write(object_keys.outcome(job.id), outcome.dump())
            self._redis.listings.job_ended(TENANT, job.id, job.submitted_at, JobState.FAILED)

    def queue(self, jobs: int, to_be_read: bool) -> None:
        """Add jobs that wait, with their messages; with their images, if a worker is to read them."""
        client, enqueued = self._redis.connection.client, f"{time.time() - 3600:.3f} {QUEUE} {TENANT}"
        template = self._record(self._now)
        record, marker = template.dump().decode(), OpenMarker().dump()
        submitted = template.model_dump(mode="json")["submitted_at"]
        for first in range(0, jobs, _AT_ONCE):
            together = client.pipeline(transaction=False)
            numbers = range(first, min(first + _AT_ONCE, jobs))
            ids = [str(uuid.uuid4()) for _ in numbers]
            times = [self._now - timedelta(hours=1) + timedelta(milliseconds=number) for number in numbers]
            scores = {id: int(at.timestamp() * 1e6) for id, at in zip(ids, times, strict=True)}
            for id, at in zip(ids, times, strict=True):
                mine = record.replace(template.id, id).replace(submitted, at.isoformat(), 1)
                self._write(object_keys.record(id), mine.encode())
                self._write(object_keys.open_marker(id), marker)
                if to_be_read:
                    os.link(self._image, self._path(object_keys.job_input(id, self._sha256)))
            together.mset({f"enqueued:{id}": enqueued for id in ids})
            together.zadd(
                line(QUEUE, TENANT), {id: number - jobs for id, number in zip(ids, numbers, strict=True)}
            )
            together.zadd(f"jobs:{TENANT}", scores)
            together.zadd(f"queued-jobs:{TENANT}", scores)
            together.lpush(QUEUE, *(_copy(self._message) if to_be_read else self._message for _ in ids))
            together.execute()
        client.sadd("tenants", TENANT)
        client.lpush(f"round:{QUEUE}", TENANT)
        client.mset({"emx:epoch": uuid.uuid4().hex, "emx:listed": 1})

    def _record(self, at: datetime) -> JobRecord:
        return JobRecord(
            id=str(uuid.uuid4()),
            tenant=TENANT,
            submitted_at=at,
            expires_at=self._now + timedelta(days=1),
            priority="backlog",
            input_sha256=self._sha256,
            media_type="image/png",
        )

    def _write(self, key: str, data: bytes) -> None:
        descriptor = os.open(self._path(key), os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, data)
        os.close(descriptor)

    def _path(self, key: str) -> str:
        path = f"{self._store}/{sharding.path_of(key)}"
        folder = path.rpartition("/")[0]
        if folder not in self._folders:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._folders.add(folder)
        return path


def _copy(message: str) -> str:
    """Return a message of its own: of two with one tag, the broker keeps one."""
    found = json.loads(message)
    found["properties"]["delivery_tag"] = found["headers"]["id"] = str(uuid.uuid4())
    return json.dumps(found)
