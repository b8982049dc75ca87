"""Real servers as fixtures: Redis, SeaweedFS, a gateway; each is stopped by whoever started it."""

import subprocess
import sysconfig
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
from emx_shared.store.s3 import S3Store
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


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real SeaweedFS S3 server."""
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    ports = {name: free_port() for name in ("s3.port", "master.port", "volume.port", "filer.port")}
    options = [f"-{name}={port}" for name, port in ports.items()]
    options += [f"-{name}.grpc={free_port()}" for name in ("master.port", "volume.port", "filer.port", "s3.port")]
    folder = tmp_path_factory.mktemp("seaweed")
    command = [
        str(weed),
        f"-logdir={folder}",
        "server",
        "-s3",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=200",  # each bucket takes several
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={folder}",
        *options,
    ]
    log = (folder / "log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    store = S3Store(f"127.0.0.1:{ports['s3.port']}", "ready", "any", "any", "us-east-1", secure=False)
    for attempt in range(60):
        try:
            store.check()
            break
        except Exception:
            if attempt == 59 or process.poll() is not None:
                process.kill()
                raise
            time.sleep(0.5)
    yield f"127.0.0.1:{ports['s3.port']}"
    process.kill()  # asked politely, it takes half a minute
    process.wait(20)


@pytest.fixture(params=["directory", "seaweed"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each backend in turn."""
    if request.param == "directory":
        return DirectoryStore(tmp_path / "store")
    endpoint = request.getfixturevalue("seaweed")
    found = S3Store(endpoint, "ready", "any", "any", "us-east-1", secure=False)
    for entry in list(found.list("")):
        found.delete(entry.key)
    return found


class RememberingQueue:
    """Stands where Celery does, to see which messages were sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    def enqueue_read(self, fallback_job: str, priority: str) -> None:
        self.sent.append(("read", fallback_job))

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


@pytest.fixture
def ledger(redis_state: RedisState, tmp_path: Path) -> Ledger:
    settings = Settings(lease=1.0, abandon_after=0.0, webhook_secret="whsec_" + "c2VjcmV0" * 4)
    return Ledger(DirectoryStore(tmp_path / "ledger"), redis_state, RememberingQueue(), settings)


@pytest.fixture(scope="session")
def start_gateway() -> StartGateway:
    """Starts a gateway; its settings are given as environment variables."""
    return running_gateway
