"""The commands that talk to a server, against a real one."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from standardwebhooks.webhooks import Webhook
from typer.testing import CliRunner, Result

from emx_shared.api_keys import SCOPES, KeyRing
from emx_shared.contracts.report import Report
from emx_shared.contracts.states import JobState
from emx_shared.ledger import advance_batch, cancel
from emx_shared.settings import Settings, settings
from emx_shared.store.directory import DirectoryStore
from explainmyxray.cli import doctor_checks
from explainmyxray.cli.main import app
from support.gateway import RunningGateway, StartGateway

EMX = [sys.executable, "-m", "explainmyxray"]


@pytest.fixture(autouse=True)
def _at_the_gateway(gateway: RunningGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("EMX_URL", gateway.url)
    monkeypatch.delenv("EMX_API_KEY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("explainmyxray.cli.terminal.console.width", 200)
    settings.cache_clear()
    yield
    settings.cache_clear()


def emx(*arguments: object, ok: bool = True, **more: Any) -> Result:
    result = CliRunner().invoke(app, list(map(str, arguments)), **more)
    assert (result.exit_code == 0) == ok, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def lines(result: Result) -> list[Any]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def worker(gateway: RunningGateway) -> Iterator[None]:
    """Reads whatever waits, until the test is over."""
    with gateway.at_work():
        yield


@pytest.fixture
def folder(gateway: RunningGateway, tmp_path: Path) -> Path:
    """Three images, one that is none, and something else."""
    made = tmp_path / "scans"
    (made / "more").mkdir(parents=True)
    for name in ("a.png", "b.png", "more/a.png"):
        (made / name).write_bytes(gateway.png())
    (made / "c.jpg").write_bytes(b"no image")
    (made / "notes.txt").write_text("notes")
    return made


# analyze


@pytest.mark.usefixtures("worker")
def test_one_file_is_read_by_the_server_and_its_report_printed(folder: Path) -> None:
    text = emx("analyze", folder / "a.png").stdout
    for word in ("There is fluid.", "pleural effusion", "Effusion.", "Not for clinical use"):
        assert word in text
    report = Report.model_validate_json(emx("analyze", folder / "a.png", "--json").stdout)
    assert report.impression == "Effusion."


@pytest.mark.usefixtures("worker")
def test_a_bad_file_in_a_folder_stops_no_other(folder: Path, tmp_path: Path) -> None:
    result = emx("analyze", folder, "--overlay", tmp_path / "o", "--output", tmp_path / "r", ok=False)
    assert result.exit_code == 1
    assert "1 of 4 have no report" in result.stderr
    assert "not a PNG, JPEG, TIFF or DICOM" in result.stderr
    assert result.stdout.count("Effusion.") == 3
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["a.png", "b.png", "more"]
    written = sorted(path.relative_to(tmp_path / "r").as_posix() for path in (tmp_path / "r").rglob("*.json"))
    assert written == ["a.json", "b.json", "more/a.json"]
    with Image.open(tmp_path / "o" / "a.png") as overlay:
        assert overlay.format == "PNG"
    assert Report.model_validate_json((tmp_path / "r" / "b.json").read_bytes()).findings == "There is fluid."


@pytest.mark.usefixtures("worker")
def test_many_files_are_a_line_of_json_each(folder: Path) -> None:
    archive = folder.parent / "scans.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.write(folder / "a.png", "deep/a.png")
        made.write(folder / "notes.txt", "notes.txt")
    result = emx("analyze", archive, folder / "*.png", folder / "c.jpg", "--json", ok=False)
    read = lines(result)
    assert [Path(one["file"]).name for one in read] == ["a.png", "a.png", "b.png", "c.jpg"]
    assert all(one["report"]["impression"] == "Effusion." and one["job"] for one in read[:3])
    assert "not a PNG, JPEG, TIFF or DICOM" in read[3]["error"]


def test_a_lone_bad_file_is_a_sentence(folder: Path) -> None:
    result = emx("analyze", folder / "c.jpg", ok=False)
    assert result.exit_code == 1
    assert "not a PNG, JPEG, TIFF or DICOM" in result.stderr
    assert result.stdout == ""


def test_what_is_not_there_is_a_wrong_usage(tmp_path: Path) -> None:
    for missing in (tmp_path / "nowhere.png", tmp_path / "*.png", tmp_path):
        result = emx("analyze", missing, ok=False)
        assert result.exit_code == 2
        assert "There is no image file" in result.stderr


def test_a_server_that_is_not_there_is_a_sentence(folder: Path) -> None:
    result = emx("jobs", "list", "--url", "nonsense", ok=False)
    assert "address must be like http://127.0.0.1:8000" in result.stderr


# jobs


def test_jobs_are_listed_shown_cancelled_and_erased(gateway: RunningGateway) -> None:
    study = uuid.uuid4().hex
    first, second = (gateway.submit(gateway.png(), study=study).json()["id"] for _ in range(2))
    gateway.read_by_a_worker(first)
    assert [job["id"] for job in lines(emx("jobs", "list", "--study", study, "--json"))] == [second, first]
    listed = emx("jobs", "list", "--study", study, "--state", "succeeded").stdout
    assert first in listed and second not in listed
    (found,) = lines(emx("jobs", "list", "--study", study, "--finding", "pleural_effusion", "--json"))
    assert found["id"] == first
    assert "No jobs." in emx("jobs", "list", "--study", study, "--finding", "none").stdout
    assert "query.finding" in emx("jobs", "list", "--finding", "fluid", ok=False).stderr
    assert "There may be more" in emx("jobs", "list", "--limit", 1).stderr
    assert "There is fluid." in emx("jobs", "show", first).stdout
    assert lines(emx("jobs", "show", first, "--json"))[0]["report"]["impression"] == "Effusion."
    assert f"{second} cancelled" in emx("jobs", "cancel", second).stdout
    assert "already ended" in emx("jobs", "cancel", first, ok=False).stderr
    assert "Aborted" in emx("jobs", "erase", first, input="n\n", ok=False).output
    assert "1 erased" in emx("jobs", "erase", first, "--yes").stdout
    assert "There is no job" in emx("jobs", "erase", first, "--yes", ok=False).stderr
    asked = emx("jobs", "erase", "--study", study, "--json", input="y\n")
    assert json.loads(asked.stdout.splitlines()[-1]) == {"erased": 1}
    assert "There is no job with this id" in emx("jobs", "show", first, ok=False).stderr
    assert emx("jobs", "erase", "--yes", ok=False).exit_code == 2
    assert emx("jobs", "list", "--state", "lost", ok=False).exit_code == 2


def test_a_job_is_watched_while_it_is_written(gateway: RunningGateway) -> None:
    for options in ((), ("--json",)):
        job = gateway.submit(gateway.png()).json()["id"]
        worker = threading.Thread(target=gateway.written_by_a_worker, args=(job, "FINDINGS: There", " is fluid."))
        worker.start()
        result = emx("jobs", "watch", job, *options)
        worker.join()
        if options:
            told = lines(result)
            assert told[0] == {"event": "state", "state": "queued"}
            assert [one["text"] for one in told if one.get("event") == "text"] == ["FINDINGS: There", " is fluid."]
            assert told[-1]["report"]["impression"] == "Effusion."
        else:
            assert result.stdout.startswith("FINDINGS: There is fluid.\n")
            assert "IMPRESSION" in result.stdout
    cancelled = gateway.submit(gateway.png()).json()["id"]
    emx("jobs", "cancel", cancelled)
    assert emx("jobs", "watch", cancelled, ok=False).exit_code == 1


# batch


def courier(gateway: RunningGateway, batch: str) -> None:
    """Makes jobs of a batch's items, has them read, and ends the batch."""
    advance_batch(gateway.ledger, batch)
    for item in gateway.client.get(f"/v1/batches/{batch}/items").json()["items"]:
        if item["state"] == JobState.QUEUED:
            gateway.read_by_a_worker(item["id"])
    advance_batch(gateway.ledger, batch)


def test_a_batch_is_submitted_followed_and_fetched(gateway: RunningGateway, folder: Path, tmp_path: Path) -> None:
    (folder / "c.jpg").unlink()
    (made,) = lines(emx("batch", "submit", folder, "--priority", "routine", "--json"))
    assert made["total"] == 3
    assert "0 of 3 have ended" in emx("batch", "status", made["id"]).stdout
    threading.Timer(0.5, courier, (gateway, made["id"])).start()
    (ended,) = lines(emx("batch", "status", made["id"], "--wait", "--json"))
    assert (ended["state"], ended["counts"]["succeeded"]) == ("completed", 3)
    found = lines(emx("batch", "results", made["id"], "--json", "--output", tmp_path / "reports"))
    assert len(found) == 3
    assert all(job["report"]["impression"] == "Effusion." for job in found)
    folder = tmp_path / "reports"
    reports = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.json"))
    assert reports == ["coco.json", "reports/a.json", "reports/b.json", "reports/more/a.json"]
    assert "3 of 3 have ended" in emx("batch", "status", made["id"]).stdout
    assert emx("batch", "results", made["id"]).stdout.count("succeeded") == 3
    assert "already ended" in emx("batch", "cancel", made["id"], ok=False).stderr


def test_a_bad_file_fails_its_own_item_and_a_waiting_batch_is_cancelled(
    gateway: RunningGateway, folder: Path
) -> None:
    (made,) = lines(emx("batch", "submit", folder, "--json"))
    courier(gateway, made["id"])
    assert "3 succeeded" in emx("batch", "status", made["id"]).stdout
    assert "1 failed" in emx("batch", "status", made["id"]).stdout
    assert "its image is at fault" in emx("batch", "retry", made["id"], ok=False).stderr
    (again,) = lines(emx("batch", "retry", made["id"], "--include-permanent", "--json"))
    assert (again["total"], again["retry_of"]) == (1, made["id"])
    assert "paused" in emx("batch", "pause", again["id"]).stdout
    assert "running" in emx("batch", "resume", again["id"]).stdout
    assert "cancelled" in emx("batch", "cancel", again["id"]).stdout
    assert "is being erased" in emx("batch", "erase", again["id"], "--yes").stdout
    advance_batch(gateway.ledger, again["id"])
    assert "no batch with this id" in emx("batch", "status", again["id"], ok=False).stderr


def test_a_manifest_is_submitted_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,name\nimport:a.png,first\n")
    (made,) = lines(emx("batch", "submit", "--manifest", tmp_path / "m.csv", "--json"))
    assert made["total"] == 1
    assert emx("batch", "submit", ok=False).exit_code == 2


# keys


def test_keys_are_made_listed_and_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMX_STORE", f"file:{tmp_path / 'store'}")
    settings.cache_clear()
    assert "There is no store at" in emx("keys", "list", ok=False).stderr
    assert not (tmp_path / "store").exists()
    text = emx("keys", "create", "--tenant", "north", "--name", "ward 3", "--scope", "read").stdout.strip()
    ring = KeyRing(DirectoryStore(tmp_path / "store"))
    key = ring.find(text)
    assert key and (key.tenant, key.scopes, key.name) == ("north", ("read",), "ward 3")
    assert ring.find(lines(emx("keys", "create", "--json"))[0]["key"]).scopes == SCOPES  # type: ignore[union-attr]
    listed = emx("keys", "list").stdout
    assert key.id in listed and "ward 3" in listed and text.rpartition("_")[2] not in listed
    assert "is revoked" in emx("keys", "revoke", key.id).stdout
    assert ring.find(text) is None
    assert [bool(one["revoked_at"]) for one in lines(emx("keys", "list", "--json"))] == [True, False]
    assert "no key with this id" in emx("keys", "revoke", "nonsense", ok=False).stderr
    assert "tenant's name" in emx("keys", "create", "--tenant", "No!", ok=False).stderr
    assert emx("keys", "create", "--scope", "all", ok=False).exit_code == 2
    other = f"file:{tmp_path / 'other'}"
    emx("keys", "create", "--store", other)
    assert len(lines(emx("keys", "list", "--store", other, "--json"))) == 1
    assert "EMX_STORE must be" in emx("keys", "list", "--store", "ftp://x", ok=False).stderr


def test_a_missing_key_is_explained(
    redis_url: str, tmp_path: Path, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = emx("keys", "create", "--store", f"file:{tmp_path}", "--scope", "submit").stdout.strip()
    with start_gateway(redis_url, tmp_path) as locked:
        url = str(locked.client.base_url)
        assert "Set EMX_API_KEY" in emx("jobs", "list", "--url", url, ok=False).stderr
        monkeypatch.setenv("EMX_API_KEY", text)
        settings.cache_clear()
        assert "lacks the scope 'read'" in emx("jobs", "list", "--url", url, ok=False).stderr


# listen


class Endpoint:
    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        got = self.got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.append((dict(self.headers.items()), self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(202)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def until(true: Callable[[], Any], seconds: float = 20) -> None:
    give_up = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_webhooks_are_forwarded_to_this_machine(gateway: RunningGateway) -> None:
    secret = gateway.client.post("/v1/webhooks/secrets/rotate").json()["secret"]
    endpoint = Endpoint()
    command = [*EMX, "listen", "--forward", endpoint.url]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stderr and "Listening to" in process.stderr.readline()

        def heard() -> bool:
            gateway.read_by_a_worker(gateway.submit(gateway.png()).json()["id"])
            return bool(endpoint.got)

        until(heard)
        headers, body = endpoint.got[0]
        assert Webhook(secret).verify(body, headers)["type"] == "job.succeeded"
        assert process.stdout
        printed = process.stdout.readline()
        assert "job.succeeded" in printed and "→ 202" in printed
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        endpoint.server.shutdown()
        endpoint.server.server_close()
    assert emx("listen", "--forward", "localhost:3000", ok=False).exit_code == 2


# doctor


def checks(*, ok: bool) -> dict[str, Any]:
    return {line["name"]: line for line in lines(emx("doctor", "--json", ok=ok))}


def test_the_doctor_finds_what_is_well_and_what_is_not(
    gateway: RunningGateway, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path
) -> None:
    monkeypatch.setenv("EMX_REDIS", redis_url)
    monkeypatch.setenv("EMX_STORE", f"file:{tmp_path}")
    monkeypatch.setenv("EMX_MODEL", str(tiny_checkpoint))
    monkeypatch.setenv("EMX_PORT", gateway.url.rpartition(":")[2])
    settings.cache_clear()
    found = checks(ok=False)
    assert found["Server"]["status"] == "fail" and "without worker" in found["Server"]["found"]
    gateway.ledger.redis.workers.announce("w", 60)
    gateway.ledger.redis.couriers.announce("c", 60)
    found = checks(ok=True)
    assert {name for name, line in found.items() if line["status"] == "fail"} == set()
    assert "is ready" in found["Server"]["found"]
    assert "ExplainMyXray is running on" in found["Port"]["found"]
    assert found["Redis"]["found"] == "EMX_REDIS answers"
    assert "keeps what it is given" in found["Store"]["found"]
    assert emx("doctor").stdout.startswith("ok   Python")


def test_the_doctor_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for name, value in {
        "EMX_REDIS": "redis://127.0.0.1:1/0",
        "EMX_STORE": "s3+http://127.0.0.1:1/bucket",
        "EMX_MODEL": "/nowhere/model",
        "EMX_URL": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    found = checks(ok=False)
    for name in ("Redis", "Store", "Model", "Server"):
        assert found[name]["status"] == "fail" and found[name]["todo"], name
    monkeypatch.setenv("EMX_STORE", f"file:{tmp_path / 'new' / 'store'}")
    settings.cache_clear()
    assert checks(ok=False)["Store"]["status"] == "ok"
    assert not (tmp_path / "new").exists()


def test_the_doctor_says_how_to_get_the_demo_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMX_MODEL", raising=False)
    monkeypatch.setattr("explainmyxray.cli.doctor_checks.DEMO_MODEL", tmp_path / "demo")
    missing = doctor_checks.model(Settings(model=str(tmp_path / "demo")))
    assert (missing.status, "demo model is missing" in missing.found) == ("fail", True)
    assert "git checkout HEAD -- models/demo" in missing.todo and "pip install" in missing.todo
    assert "unset" not in missing.todo and missing.todo.count(". ") == 0
    other = doctor_checks.model(Settings(model=str(tmp_path / "other")))
    assert "unset it" in other.todo


# The program


def test_help_is_quick_and_reading_by_a_server_needs_no_torch(folder: Path) -> None:
    began = time.monotonic()
    subprocess.run([*EMX, "--help"], check=True, capture_output=True)
    assert time.monotonic() - began < 2  # alone on a machine: 0.2 s
    code = (
        "import sys; from typer.testing import CliRunner; from explainmyxray.cli.main import app;"
        f"CliRunner().invoke(app, ['analyze', {str(folder / 'c.jpg')!r}]);"
        "print([m for m in ('torch', 'fastapi', 'celery', 'redis', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_as_a_process_stdout_is_json_and_nothing_else(gateway: RunningGateway) -> None:
    job = gateway.submit(gateway.png()).json()["id"]
    done = subprocess.run([*EMX, "jobs", "show", job, "--json"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["id"] == job


def test_the_shell_completes_commands() -> None:
    asked = {"_EMX_COMPLETE": "complete_bash", "COMP_WORDS": "emx ", "COMP_CWORD": "1"}
    code = "from explainmyxray.cli.main import app; app(prog_name='emx')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True
    )
    for name in ("analyze", "jobs", "batch", "keys", "admin", "listen", "doctor", "up"):
        assert name in done.stdout.split()


def test_cancelling_needs_no_worker(gateway: RunningGateway) -> None:
    job = gateway.submit(gateway.png()).json()["id"]
    cancel(gateway.ledger, job)
    assert "already ended" not in emx("jobs", "cancel", job).stderr
