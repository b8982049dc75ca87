"""A gateway over real HTTP, on a real Redis and a real store; a worker's outcomes are written by the tests."""

from collections.abc import Iterator

import pytest

from support.gateway import RunningGateway, StartGateway


@pytest.fixture(scope="module")
def gateway(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, start_gateway: StartGateway
) -> Iterator[RunningGateway]:
    own = {"EMX_EXPLAIN_TIMEOUT": "2", "EMX_MAX_UPLOAD_BYTES": "1000000"}
    with start_gateway(redis_url, tmp_path_factory.mktemp("store"), **own) as made:
        yield made
