"""A gateway, and a bad connection to it."""

from collections.abc import Iterator

import pytest

from support.bad_connection import BadConnection, bad_connection_to
from support.checkpoints import quiet, tiny_checkpoint
from support.gateway import RunningGateway, StartGateway


@pytest.fixture(scope="module")
def gateway(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, start_gateway: StartGateway
) -> Iterator[RunningGateway]:
    own = {"EMX_MAX_UPLOAD_BYTES": "1000000", "EMX_WEBHOOK_ALLOW_PRIVATE": "true"}
    with start_gateway(redis_url, tmp_path_factory.mktemp("store"), **own) as made:
        yield made


@pytest.fixture
def bad_connection(gateway: RunningGateway) -> Iterator[BadConnection]:
    with bad_connection_to(gateway.url) as made:
        yield made


__all__ = ["quiet", "tiny_checkpoint"]
