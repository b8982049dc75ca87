"""The stores that the ledger is tried on: a directory, SeaweedFS and moto, the two as real servers."""

import os
import socket
import subprocess
import sysconfig
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from emx_shared.store import Store
from emx_shared.store.directory import DirectoryStore
from emx_shared.store.s3 import S3Store
from explainmyxray.supervisor import free_port

STORES = ("directory", "seaweed", "moto")
MOTO = ("moto_server", "-H", "127.0.0.1", "-p", "PORT")


def s3_store(endpoint: str, bucket: str) -> S3Store:
    """Return a bucket of a test server, not yet made."""
    return S3Store(endpoint, bucket, "key", "a-long-secret", "us-east-1", secure=False)


@contextmanager
def s3_server(command: tuple[str, ...], folder: Path, **environment: str) -> Iterator[str]:
    """Run an S3 server that listens on the port in place of PORT. Yield its address."""
    port = str(free_port())
    program = str(Path(sysconfig.get_path("scripts")) / command[0])
    arguments = [part.replace("PORT", port) for part in command[1:]]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *arguments], cwd=folder, env={**os.environ, **environment}, stdout=log, stderr=log
        )
    try:
        for _ in range(150):
            with suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), 1):
                break
            assert process.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()  # asked politely, SeaweedFS takes half a minute
        process.wait(20)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a moto server, which keeps all in memory."""
    with s3_server(MOTO, tmp_path_factory.mktemp("moto")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real SeaweedFS S3 server, with the bucket ``ready``."""
    ports = [f"-{name}={free_port()}" for name in ("master.port", "volume.port", "filer.port")]
    ports += [f"-{name}.grpc={free_port()}" for name in ("master.port", "volume.port", "filer.port", "s3.port")]
    folder = tmp_path_factory.mktemp("seaweed")
    command = (
        "weed",
        f"-logdir={folder}",
        "server",
        "-s3",
        "-s3.port=PORT",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=200",  # each bucket takes several
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={folder}",
        *ports,
    )
    with s3_server(command, folder) as endpoint:
        for attempt in range(60):
            try:
                s3_store(endpoint, "ready").check()
                break
            except Exception:
                if attempt == 59:
                    raise
                time.sleep(0.5)
        yield endpoint


NewStore = Callable[[], Store]


@pytest.fixture(params=STORES)
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> NewStore:
    """Makes empty stores of one kind, one at a time; each kind in turn."""

    def directory() -> Store:
        return DirectoryStore(tmp_path / f"store-{uuid.uuid4().hex}")

    def moto() -> Store:
        made = s3_store(request.getfixturevalue("moto"), f"ledger-{uuid.uuid4().hex}")
        made._make_bucket()
        return made

    def seaweed() -> Store:  # always one bucket: making another takes a second
        made = s3_store(request.getfixturevalue("seaweed"), "ready")
        made.delete_below("")
        return made

    makers: dict[str, NewStore] = {"directory": directory, "seaweed": seaweed, "moto": moto}
    return makers[request.param]


@pytest.fixture
def store(new_store: NewStore) -> Store:
    """An empty store, of each kind in turn."""
    return new_store()
