"""``emx keys``: the first key locks nobody out of what was there, and there is a way back."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from emx_gateway.auth.authenticator import NOTICED_AFTER, Authenticator
from emx_gateway.http.problems import Problem
from emx_shared.api_keys import KeyRing
from emx_shared.settings import settings
from emx_shared.store.directory import DirectoryStore
from explainmyxray.cli.main import app
from support.gateway import RunningGateway, StartGateway


@pytest.fixture
def keyless(
    redis_url: str, tmp_path: Path, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningGateway]:
    """A server of a newcomer, who has tried it without keys."""
    monkeypatch.setenv("EMX_STORE", f"file:{tmp_path / 'store'}")
    monkeypatch.setattr("explainmyxray.cli.terminal.errors.width", 400)
    settings.cache_clear()
    with start_gateway(redis_url, tmp_path / "store") as made:
        yield made
    settings.cache_clear()


def keys(*arguments: str, code: int = 0, answer: str = "") -> Result:
    result = CliRunner().invoke(app, ["keys", *arguments], input=answer)
    assert result.exit_code == code, result.output
    return result


def status(gateway: RunningGateway, job: str, key: str = "") -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.get(f"{gateway.url}/v1/jobs/{job}", headers=headers).status_code


def soon(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + NOTICED_AFTER + 5
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.2)


def test_the_first_key_says_what_it_changes_and_takes_the_earlier_jobs_along(keyless: RunningGateway) -> None:
    job = keyless.submit(keyless.png()).json()["id"]
    refused = keys("create", "--tenant", "ward-3", code=1)
    assert "every request needs a key" in refused.stderr
    assert "There are 1 jobs" in refused.stderr and "--adopt or --no-adopt. No key was created" in refused.stderr
    assert "There are no keys" in keys("list").stdout
    made = keys("create", "--tenant", "ward-3", answer="y\n")
    key = made.stdout.strip().splitlines()[-1]
    soon(lambda: status(keyless, job) == 401)
    assert status(keyless, job, key) == 200
    another = keys("create", "--tenant", "ward-3").stdout.strip()
    other = keys("create", "--tenant", "ward-4").stdout.strip()
    assert (status(keyless, job, another), status(keyless, job, other)) == (200, 404)
    assert "belong to tenant ward-3" in keys("create", code=1).stderr


@pytest.mark.parametrize(("arguments", "found"), [(["--adopt"], 200), (["--no-adopt"], 404)])
def test_scripts_say_what_becomes_of_the_earlier_jobs(
    keyless: RunningGateway, arguments: list[str], found: int
) -> None:
    job = keyless.submit(keyless.png()).json()["id"]
    key = keys("create", "--tenant", "ward-3", *arguments).stdout.strip()
    assert status(keyless, job, key) == found
    if found == 404:
        assert status(keyless, job, keys("create").stdout.strip()) == 200


def test_a_first_key_without_a_tenant_reaches_the_earlier_jobs(keyless: RunningGateway) -> None:
    job = keyless.submit(keyless.png()).json()["id"]
    made = keys("create")
    assert "belong to tenant default, whose keys reach them" in made.stderr
    assert status(keyless, job, made.stdout.strip()) == 200


def test_an_operator_returns_to_a_server_without_keys(keyless: RunningGateway) -> None:
    job = keyless.submit(keyless.png()).json()["id"]
    key = keys("create", "--tenant", "ward-3", "--adopt", "--json").stdout
    id = key.partition('"id": "')[2][:12]
    theirs = keys("create", "--tenant", "ward-4").stdout.strip()
    headers = {"Authorization": f"Bearer {theirs}"}
    files = {"file": keyless.png()}
    of_ward_4 = httpx.post(f"{keyless.url}/v1/jobs", files=files, headers=headers).json()["id"]
    soon(lambda: status(keyless, job) == 401)
    assert "No valid key of tenant ward-3 is left" in keys("revoke", id).stderr
    last = theirs.split("_")[1]
    assert "That was the last valid key" in keys("revoke", last).stderr
    assert status(keyless, job) == 401
    asked = keys("clear", code=1, answer="n\n")
    assert "Jobs of ward-4 are out of reach then" in asked.stderr
    assert "2 keys removed" in keys("clear", "--yes").stdout
    soon(lambda: status(keyless, job) == 200)
    assert status(keyless, of_ward_4) == 404
    # A tenant with jobs of its own takes over no others'.
    again = keys("create", "--tenant", "ward-4").stdout.strip()
    assert (status(keyless, of_ward_4, again), status(keyless, job, again)) == (200, 404)


def test_a_server_that_others_reach_opens_for_nobody_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = KeyRing(DirectoryStore(tmp_path))
    ring.create("north")
    local, public = Authenticator(ring, may_open=True), Authenticator(ring)
    for authenticator in (local, public):
        with pytest.raises(Problem):
            authenticator.caller(None)
    ring.clear()
    monkeypatch.setattr("emx_gateway.auth.authenticator.NOTICED_AFTER", -1.0)
    assert local.caller(None).tenant == "default"
    with pytest.raises(Problem):
        public.caller(None)
