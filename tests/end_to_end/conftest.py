"""One running system for all end-to-end tests, as ``emx up`` starts it."""

from collections.abc import Iterator

import httpx
import pytest

from explainmyxray.supervisor import Supervisor, free_port


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    running = Supervisor(free_port(), tmp_path_factory.mktemp("system") / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMX_LEASE", "3")
        patch.setenv("EMX_RECONCILE_EVERY", "0.5")
        try:
            running.start()
            for _ in running.wait_until_ready():
                pass
            yield running
        finally:
            running.stop()
    assert not any(part.alive for part in running.parts)


@pytest.fixture
def client(system: Supervisor) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, timeout=120) as found:
        yield found
