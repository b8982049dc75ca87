"""``emx doctor --store`` on real servers, and on such as can't hold a ledger."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig
from typer.testing import CliRunner

from emx_shared.settings import settings
from explainmyxray.cli.main import app
from explainmyxray.supervisor import free_port
from support.cutting_proxy import cutting_proxy
from support.object_stores import s3_server, s3_store


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("EMX_S3_ACCESS_KEY", "key")
    monkeypatch.setenv("EMX_S3_SECRET_KEY", "a-long-secret")
    settings.cache_clear()
    yield
    settings.cache_clear()


def doctor(store: str, *, ok: bool) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["doctor", "--store", store, "--json"])
    assert result.exit_code == (0 if ok else 1), result.output
    return {line["name"]: line for line in map(json.loads, result.stdout.splitlines())}


@pytest.mark.parametrize(("server", "there"), [("seaweed", False), ("seaweed", True), ("moto", False)])
def test_a_server_that_can_hold_a_ledger_is_as_it_was(
    request: pytest.FixtureRequest, server: str, there: bool
) -> None:
    endpoint, bucket = request.getfixturevalue(server), f"trial-{'used' if there else 'new'}"
    store = s3_store(endpoint, bucket)
    if there:
        store.prepare()
        store.put("jobs/x", b"mine")
    found = doctor(f"s3+http://{endpoint}/{bucket}", ok=True)
    assert len(found) == 9 and {line["status"] for line in found.values()} == {"ok"}
    assert "can hold a ledger" in found["Verdict"]["found"]
    if there:
        assert [entry.key for entry in store.list("")] == ["jobs/x"]
        store.delete("jobs/x")
    else:
        assert not store._client.bucket_exists(bucket)


def test_a_directory_is_as_it_was(tmp_path: Path) -> None:
    assert "can hold a ledger" in doctor(f"file:{tmp_path}/not/yet", ok=True)["Verdict"]["found"]
    assert "can hold a ledger" in doctor(f"file:{tmp_path}", ok=True)["Verdict"]["found"]
    assert not list(tmp_path.iterdir())


def test_a_server_that_ignores_conditions_cant(tmp_path: Path) -> None:
    command = ("nanio", "serve", "--host", "127.0.0.1", "--port", "PORT", "--data-dir", str(tmp_path / "data"))
    keys = {"NANIO_ACCESS_KEY": "key", "NANIO_SECRET_KEY": "a-long-secret"}
    with s3_server(command, tmp_path, **keys) as endpoint:
        found = doctor(f"s3+http://{endpoint}/ledger", ok=False)
        assert "ignores conditional writes" in found["Conditional writes"]["found"]
        assert found["Reading"]["status"] == found["Deleting"]["status"] == "ok"
        assert "can't hold a ledger: Conditional writes, Races" in found["Verdict"]["found"]
        assert not list(s3_store(endpoint, "ledger").list(""))
        assert found["Bucket"]["status"] == "warn"  # nanio doesn't remove it


def test_a_server_that_keeps_cut_writes_cant(seaweed: str) -> None:
    with cutting_proxy(seaweed) as proxy:
        proxy.dropped_header = b"content-md5"  # without a digest, SeaweedFS keeps an empty object
        found = doctor(f"s3+http://{proxy.address}/ready", ok=False)
    assert "keeps a part of an object" in found["Cut writes"]["found"]
    assert found["Verdict"]["found"].endswith("can't hold a ledger: Cut writes") and found["Verdict"]["todo"]


def test_a_bucket_that_keeps_versions_cant(moto: str) -> None:
    store = s3_store(moto, "trial-versions")
    store.prepare()
    store._client.set_bucket_versioning("trial-versions", VersioningConfig(ENABLED))
    found = doctor(f"s3+http://{moto}/trial-versions", ok=False)
    assert "keeps versions" in found["Verdict"]["found"]


@pytest.mark.parametrize("store", ["s3+http://127.0.0.1:{port}/bucket", "nonsense", "file:{folder}/file"])
def test_what_cant_be_tried_is_said(tmp_path: Path, store: str) -> None:
    (tmp_path / "file").touch()
    found = doctor(store.format(port=free_port(), folder=tmp_path), ok=False)
    assert list(found) == ["Verdict"]
