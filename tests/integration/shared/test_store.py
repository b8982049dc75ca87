import hashlib
import os
import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from minio import Minio
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig

from emx_shared.store import NoSuchObject, Store, StoreError, UnsuitableStore
from emx_shared.store.directory import DirectoryStore
from emx_shared.store.s3 import S3Store
from explainmyxray.supervisor import free_port
from support.object_stores import s3_server, s3_store


def test_objects_are_written_read_listed_and_deleted(store: Store) -> None:
    store.put("a/one", b"1")
    store.put("a/one", b"replaced")
    store.put("a/two", b"2")
    store.put("b/three", b"3")
    assert store.get("a/one") == b"replaced"
    assert [entry.key for entry in store.list("a/")] == ["a/one", "a/two"]
    assert abs((store.now() - next(store.list("b/")).modified).total_seconds()) < 60
    store.delete("a/one")
    store.delete("a/one")
    assert not store.exists("a/one")
    with pytest.raises(NoSuchObject):
        store.get("a/one")


def test_of_racing_writers_exactly_one_wins(store: Store) -> None:
    for race in range(2):  # in SeaweedFS, each loser may take a second
        wins: list[int] = []
        barrier = threading.Barrier(8)

        def write(
            number: int, key: str = f"race/{race}", barrier: threading.Barrier = barrier, wins: list[int] = wins
        ) -> None:
            barrier.wait()
            if store.put_if_absent(key, str(number).encode()):
                wins.append(number)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(wins) == 1
        assert store.get(f"race/{race}") == str(wins[0]).encode()


def test_a_server_that_ignores_conditional_writes_is_refused(tmp_path: Path) -> None:
    command = ("nanio", "serve", "--host", "127.0.0.1", "--port", "PORT", "--data-dir", str(tmp_path / "data"))
    keys = {"NANIO_ACCESS_KEY": "key", "NANIO_SECRET_KEY": "a-long-secret"}
    with s3_server(command, tmp_path, **keys) as endpoint:
        store = s3_store(endpoint, "ledger")
        with pytest.raises(UnsuitableStore, match="ignores conditional writes"):
            store.check()
        assert not list(store.list(""))  # the probe is gone


def test_a_server_that_honours_conditional_writes_is_taken_unless_the_bucket_keeps_versions(moto: str) -> None:
    store = s3_store(moto, "versions")
    store.check()
    store._client.set_bucket_versioning("versions", VersioningConfig(ENABLED))
    with pytest.raises(UnsuitableStore, match="versions"):
        store.check()


def test_a_server_that_is_away_is_no_reason_to_crash() -> None:
    store = S3Store(f"127.0.0.1:{free_port()}", "ledger", "key", "secret", "us-east-1", secure=False)
    with pytest.raises(StoreError, match="could not be reached"):
        store.get("key")


@pytest.mark.parametrize("key", ["", "../x", "a/../b", "/a", "a//b", ".parts/x"])
def test_keys_cannot_leave_the_directory(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError):
        DirectoryStore(tmp_path).put(key, b"")


def test_an_image_can_be_put_straight_into_an_s3_store_until_the_url_expires(moto: str) -> None:
    inner = s3_store(moto, "uploads")
    inner.check()
    assert inner.presign_put("uploads/t/1", 60) is None  # no client can reach it, as far as is known
    public = f"http://{moto}"
    outer = S3Store(moto, "uploads", "key", "a-long-secret", "us-east-1", secure=False, public=public)
    url = outer.presign_put("uploads/t/1", 60)
    assert url and "X-Amz-Signature" in url and "a-long-secret" not in url
    assert httpx.put(url, content=b"an image").is_success
    assert (inner.get("uploads/t/1"), inner.size("uploads/t/1")) == (b"an image", 8)
    with pytest.raises(NoSuchObject):
        inner.size("uploads/t/2")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells what was synced by /proc")
def test_every_folder_with_a_new_entry_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, synced, fsync = DirectoryStore(tmp_path), list[Path](), os.fsync

    def remember(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        if path.is_relative_to(tmp_path):  # and none of another test's thread
            synced.append(path)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", remember)
    store.put_if_absent("jobs/1/request.json", b"1")
    assert set(synced[1:]) == {tmp_path, tmp_path / "jobs", tmp_path / "jobs" / "1"}
    synced.clear()
    store.put("jobs/1/outcome.json", b"2")
    assert synced[1:] == [tmp_path / "jobs" / "1"]


def test_ids_are_spread_over_folders_and_listed_in_order(store: Store, tmp_path: Path) -> None:
    ids = sorted(str(uuid.UUID(int=number << 120 | number)) for number in range(0, 256, 5))
    patient = hashlib.sha256(b"a patient").hexdigest()
    for id in random.Random(1).sample(ids, len(ids)):
        store.put(f"jobs/{id}/request.json", b"{}")
        store.put(f"groups/ab/patient/{patient}/{id}", b"")
    store.put("imports/ab/" + ids[0], b"an image")
    assert [entry.key for entry in store.list("jobs/")] == [f"jobs/{id}/request.json" for id in ids]
    for begin in ("jobs/0", "jobs/00", "jobs/0a", f"jobs/{ids[3][:5]}", f"jobs/{ids[3]}", f"jobs/{ids[3]}/req"):
        found = [entry.key for entry in store.list(begin)]
        assert found and found == [key for id in ids if (key := f"jobs/{id}/request.json").startswith(begin)]
    of_patient = f"groups/ab/patient/{patient}/"
    assert [entry.key for entry in store.list(of_patient)] == [of_patient + id for id in ids]
    assert [entry.key for entry in store.list("")][-1] == f"jobs/{ids[-1]}/request.json"
    assert store.get(f"imports/ab/{ids[0]}") == b"an image"
    if isinstance(store, DirectoryStore):
        assert (store.root / "imports" / "ab" / ids[0]).is_file()
        assert max(len(list(folder.iterdir())) for folder in store.root.rglob("*") if folder.is_dir()) <= len(ids)
        assert not list((store.root / "jobs").glob("*-*"))


def test_a_directory_from_before_there_were_shards_is_laid_out_anew(tmp_path: Path) -> None:
    ids = [str(uuid.uuid4()) for _ in range(20)]
    keys = (
        [f"jobs/{id}/request.json" for id in ids]
        + [f"open/{id}" for id in ids]
        + ["format", f"imports/t/{ids[0]}"]
    )
    for key in keys:
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(key)
    moved = tmp_path / "open" / ids[1][:2] / ids[1]  # by a process that was stopped
    moved.parent.mkdir()
    (tmp_path / "open" / ids[1]).rename(moved)
    for _ in range(2):
        store = DirectoryStore(tmp_path)
        assert sorted(entry.key for entry in store.list("")) == sorted(keys)
        assert all(store.get(key).decode() == key for key in keys)
    assert not list((tmp_path / "jobs").glob("*-*"))


def test_of_what_was_deleted_no_folder_stays(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("a/b/c/d", b"")
    store.put("a/e", b"")
    store.delete("a/b/c/d")
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert [path for path in left if not path.startswith(".parts/")] == [".layout", ".parts", "a", "a/e"]


def test_processes_that_start_at_once_share_a_fresh_bucket(seaweed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, barrier = f"fresh-{uuid.uuid4().hex[:12]}", threading.Barrier(4)
    looked = Minio.bucket_exists

    def look_at_once(client: Minio, name: str) -> bool:
        found = looked(client, name)
        barrier.wait(10)  # nobody makes the bucket before all have missed it
        return found

    monkeypatch.setattr(Minio, "bucket_exists", look_at_once)
    stores = [S3Store(seaweed, bucket, "any", "any", "us-east-1", secure=False) for _ in range(barrier.parties)]
    with ThreadPoolExecutor(barrier.parties) as pool:
        list(pool.map(lambda store: store.check(), stores))


def test_the_time_is_the_stores_whatever_a_machines_own_clock_says(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = time.time()
    monkeypatch.setattr(time, "time", lambda: right + 25 * 3600)
    assert abs(store.now().timestamp() - right) < 60


@pytest.mark.parametrize("bucket", ["b", "Radiographs", "a_b", "x" * 64])
def test_a_bucket_that_s3_doesnt_allow_is_named(bucket: str) -> None:
    with pytest.raises(UnsuitableStore, match="which S3 doesn't allow"):
        S3Store("127.0.0.1:1", bucket, "any", "any", "us-east-1", secure=False)
