"""Real servers as fixtures: Redis, a gateway; each is stopped by whoever started it."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from emx_shared.ledger import Ledger
from emx_shared.redis_state import RedisState
from emx_shared.settings import Settings
from emx_shared.store import Store
from emx_shared.store.directory import DirectoryStore
from explainmyxray.processes import REDIS
from explainmyxray.supervisor import find_redis, free_port
from support.gateway import StartGateway, running_gateway


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    command = [find_redis(), *REDIS[1:], "--port", str(port), "--bind", "127.0.0.1"]
    process = subprocess.Popen(command, cwd=tmp_path_factory.mktemp("redis"), stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    client = redis.Redis.from_url(url)
    for _ in range(100):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.1)
    yield url
    process.terminate()
    process.wait(10)


class RememberingQueue:
    """Stands where Celery does, to see which messages were sent; those for workers wait in Redis as well."""

    def __init__(self, redis_state: RedisState) -> None:
        self.sent: list[tuple[str, str]] = []
        self._redis = redis_state.connection.client

    def enqueue_read(self, fallback_job: str, priority: str) -> None:
        self.sent.append(("read", fallback_job))
        self._redis.lpush(priority, fallback_job)

    def deliver(self, delivery: str) -> None:
        self.sent.append(("deliver", delivery))

    def advance_batch(self, batch: str) -> None:
        self.sent.append(("advance_batch", batch))

    def erase_batch(self, batch: str) -> None:
        self.sent.append(("erase_batch", batch))


@pytest.fixture
def redis_state(redis_url: str) -> Iterator[RedisState]:
    found = RedisState(redis_url, lease=1.0)
    yield found
    found.connection.client.flushall()
    found.close()


def ledger_on(store: Store, redis_state: RedisState) -> Ledger:
    settings = Settings(lease=1.0, abandon_after=0.0, webhook_secret="whsec_" + "c2VjcmV0" * 4)
    return Ledger(store, redis_state, RememberingQueue(redis_state), settings)


@pytest.fixture
def ledger(redis_state: RedisState, tmp_path: Path) -> Ledger:
    return ledger_on(DirectoryStore(tmp_path / "ledger"), redis_state)


@pytest.fixture(scope="session")
def start_gateway() -> StartGateway:
    """Starts a gateway; its settings are given as environment variables."""
    return running_gateway
