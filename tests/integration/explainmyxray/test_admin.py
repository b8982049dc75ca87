"""``emx admin check`` on stores beside which a service may run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from emx_shared.ledger import Ledger, NewBatch, finish, object_keys, submit, submit_batch
from emx_shared.ledger.opening import open_ledger
from emx_shared.ledger.records import Row
from emx_shared.settings import Settings, settings
from explainmyxray.cli.main import app
from explainmyxray.supervisor import free_port
from support.damage import damage
from support.mortality import die_after_each_write, failure, new_job
from support.object_stores import s3_store

AT_ONCE = ("--older-than", "0")


@pytest.fixture
def ledger(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """The ledger that the command works on."""
    monkeypatch.setenv("EMX_STORE", f"file:{tmp_path}")
    monkeypatch.setenv("EMX_REDIS", redis_url)
    monkeypatch.setattr("explainmyxray.cli.terminal.console.width", 200)
    settings.cache_clear()
    made = open_ledger(Settings(), "test")
    yield made
    made.redis.close()
    settings.cache_clear()


def check(*options: str, code: int) -> Result:
    result = CliRunner().invoke(app, ["admin", "check", *options])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def ended_but_open(ledger: Ledger) -> str:
    job = submit(ledger, new_job())[0].id
    die_after_each_write(ledger, lambda mortal: finish(mortal, job, failure(ledger)), 1)
    return job


def test_looking_finds_and_mending_mends(ledger: Ledger) -> None:
    assert "Nothing is wrong" in check(*AT_ONCE, code=0).stdout
    key = object_keys.open_marker(ended_but_open(ledger))
    assert check(code=0).stdout.startswith("Nothing is wrong"), "it is young"
    (line,) = lines(check(*AT_ONCE, "--json", code=1))
    assert (
        (line["fault"], line["key"], line["mended"]) == ("still-open", key, False)
        and line["what"]
        and line["todo"]
    )
    table = check(*AT_ONCE, code=1).stdout
    assert "still-open" in table and key in table and "emx admin check --mend" in table
    (line,) = lines(check(*AT_ONCE, "--mend", "--json", code=0))
    assert line["mended"] and not ledger.store.exists(key)
    assert lines(check(*AT_ONCE, "--json", code=0)) == []


def test_what_cant_be_mended_fails_the_check_and_what_is_newer_does_not(ledger: Ledger) -> None:
    job = submit(ledger, new_job())[0].id
    ledger.store.put(object_keys.record(job), b'{"format": "2.9", "kind": "series"}')
    (line,) = lines(check(*AT_ONCE, "--mend", "--json", code=0))
    assert (line["fault"], line["mended"]) == ("newer-version", False)
    damage(ledger.store, object_keys.record(job), "invalid")
    (line,) = lines(check(*AT_ONCE, "--mend", "--json", code=1))
    assert (line["fault"], line["mended"]) == ("damaged", False)
    assert "Restore it from a backup" in check(*AT_ONCE, code=1).stdout


def test_it_mends_without_redis_what_needs_none(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ended_but_open(ledger)
    monkeypatch.setenv("EMX_REDIS", f"redis://127.0.0.1:{free_port()}/0")
    settings.cache_clear()
    (line,) = lines(check(*AT_ONCE, "--mend", "--json", code=0))
    assert line["mended"] and not ledger.store.exists(object_keys.open_marker(job))


def test_what_needs_redis_waits_for_it_and_stops_nothing_else(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = submit_batch(ledger, NewBatch(paused=True), [Row(image="import:x")])
    page = object_keys.page(batch.id, batch.nonce, 0)
    damage(ledger.store, page, "cut")
    ledger.store.put("probe/left", b"1")
    monkeypatch.setenv("EMX_REDIS", f"redis://127.0.0.1:{free_port()}/0")
    settings.cache_clear()
    result = check(*AT_ONCE, "--mend", "--json", code=1)
    assert [(line["fault"], line["mended"]) for line in lines(result)] == [("page-lost", False), ("probe", True)]
    assert "Redis is needed" in result.stderr
    monkeypatch.setenv("EMX_REDIS", ledger.settings.redis)
    settings.cache_clear()
    (line,) = lines(check(*AT_ONCE, "--mend", "--json", code=0))
    assert line["key"] == page and line["mended"]


def test_it_works_on_s3(seaweed: str, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    store = s3_store(seaweed, "checked")
    store.check()
    store.put("probe/left", b"1")
    monkeypatch.setenv("EMX_STORE", f"s3+http://{seaweed}/checked")
    monkeypatch.setenv("EMX_S3_ACCESS_KEY", "key")
    monkeypatch.setenv("EMX_S3_SECRET_KEY", "a-long-secret")
    settings.cache_clear()
    (line,) = lines(check(*AT_ONCE, "--json", code=1))
    assert line["key"] == "probe/left"
    check(*AT_ONCE, "--mend", code=0)
    assert not list(store.list("probe/"))


def test_looking_writes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    ended_but_open(ledger)
    before = written(tmp_path)
    check(*AT_ONCE, code=1)
    assert written(tmp_path) == before


def written(folder: Path) -> dict[Path, int]:
    """Return when each file and folder was written, but for what processes write aside."""
    paths = (path for path in folder.rglob("*") if ".parts" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in paths}


@pytest.mark.parametrize("held", ["1", "", "\xff"])
def test_a_store_of_another_format_is_refused(ledger: Ledger, held: str) -> None:
    submit(ledger, new_job())
    ledger.store.put(object_keys.FORMAT, held.encode("latin-1"))
    assert "EMX_STORE" in check("--mend", code=1).stderr


@pytest.mark.usefixtures("ledger")
def test_a_store_that_isnt_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMX_STORE", f"file:{tmp_path / 'missing'}")
    settings.cache_clear()
    assert "There is no store at" in check(code=1).stderr
    assert not (tmp_path / "missing").exists()
