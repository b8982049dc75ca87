"""``emx batch run`` and the commands that share its machinery: interrupted anywhere, nothing is read twice."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO
from typer.testing import CliRunner, Result

from emx_shared.ledger import NewBatch, object_keys, submit_batch
from emx_shared.ledger.records import Row
from emx_shared.settings import settings
from explainmyxray.cli.main import app
from explainmyxray.cli.runs.run_state import CannotContinue, open_run
from support.bad_connection import BadConnection
from support.gateway import RunningGateway

EMX = [sys.executable, "-m", "explainmyxray"]


@pytest.fixture(autouse=True)
def _at_the_gateway(gateway: RunningGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for entry in list(gateway.ledger.store.list("")):
        if not entry.key.startswith(("format", "secrets/")):
            gateway.ledger.store.delete(entry.key)
    gateway.ledger.redis.connection.client.flushall()
    monkeypatch.setenv("EMX_URL", gateway.url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("EMX_API_KEY", raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


def emx(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result


def jobs(gateway: RunningGateway) -> Counter[str]:
    """The jobs on the server, by the names of their rows."""
    keys = [entry.key for entry in gateway.ledger.store.list(object_keys.JOBS)]
    ids = [id for key in keys if (id := object_keys.id_of_record(key))]
    return Counter(job.item.name or "" for id in ids if (job := gateway.ledger.job(id)) and job.item)


def batches(gateway: RunningGateway) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = gateway.client.get("/v1/batches").json()["items"]
    return found


def waiting_uploads(gateway: RunningGateway) -> int:
    return len(list(gateway.ledger.store.list(object_keys.UPLOADS)))


def ended(gateway: RunningGateway) -> int:
    return sum(batch["counts"].get("succeeded", 0) for batch in batches(gateway))


def images(gateway: RunningGateway, folder: Path, count: int, size: int = 80) -> Path:
    for number in range(count):
        file = folder / f"ward {number % 3}" / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gateway.png(size, 60))
    return folder


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def until(true: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    give_up = time.monotonic() + 30
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.005)


def test_a_folder_is_read_and_whatever_is_wrong_with_a_file_stays_with_that_file(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    folder = images(gateway, tmp_path / "scans", 6)
    shutil.copy(folder / "ward 0" / "000.png", folder / "ward 1" / "copy.png")
    (folder / "large.png").write_bytes(gateway.png(1500, 1500))
    (folder / "text.jpg").write_text("no image")
    (folder / "empty.dcm").touch()
    long = Path(*["x" * 200] * 2, "y" * 240 + ".png")
    (folder / long).parent.mkdir(parents=True)
    (folder / long).write_bytes(gateway.png())
    with zipfile.ZipFile(folder.parent / "scans.zip", "w") as archive:
        archive.writestr("deep/good.png", gateway.png())
        archive.writestr("deep/broken.png", gateway.png())
    damaged = bytearray((folder.parent / "scans.zip").read_bytes())
    at = damaged.index(b"deep/broken.png") + 100
    damaged[at] ^= 255
    (folder.parent / "scans.zip").write_bytes(damaged)
    out = tmp_path / "results"
    with gateway.at_work():
        result = emx("batch", "run", folder, tmp_path / "scans.zip", "--out", out, code=1)
    (batch,) = batches(gateway)
    assert f"Batch {batch['id']}" in result.stderr
    found = {line["file"]: line for line in lines(out / "results.ndjson")}
    assert len(found) == 13
    reasons = {name: line["error"] for name, line in found.items() if "error" in line}
    assert set(reasons) == {
        "scans/large.png",
        "scans/text.jpg",
        "scans/empty.dcm",
        "scans/deep/broken.png",
    }
    assert "at most 1000000 are accepted" in reasons["scans/large.png"]
    assert "not a PNG, JPEG, TIFF or DICOM" in reasons["scans/text.jpg"]
    assert "can't be extracted" in reasons["scans/deep/broken.png"]
    assert found[f"scans/{long.as_posix()}"]["report"]["impression"] == "Effusion."
    same = [found[f"scans/{name}"]["job"] for name in ("ward 0/000.png", "ward 1/copy.png")]
    assert same[0] == same[1]
    with (out / "results.csv").open(newline="") as table:
        rows = {row["file"]: row for row in csv.DictReader(table)}
    assert rows.keys() == found.keys()
    assert rows["scans/ward 2/002.png"]["findings"] == "pleural effusion left"
    assert rows["scans/large.png"]["state"] == "not read"
    reports = {path.relative_to(out / "reports").as_posix() for path in (out / "reports").rglob("*.json")}
    assert {"scans/ward 2/005.json", "scans/ward 1/copy.json", "scans/deep/good.json"} <= reports
    assert len(reports) == 9
    coco = COCO(out / "coco.json")
    assert len(coco.getImgIds()) == 9
    (image,) = [each for each in coco.loadImgs(coco.getImgIds()) if each["file_name"] == "scans/ward 2/002.png"]
    (box,) = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
    assert (box["bbox"], box["area"]) == ([40, 30, 30, 25], 750)
    assert coco.loadCats(box["category_id"])[0]["name"] == "pleural effusion"
    assert waiting_uploads(gateway) == 0


def test_what_was_read_is_not_read_again_and_what_is_new_or_changed_is(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    folder, out = images(gateway, tmp_path / "scans", 4), tmp_path / "results"
    with gateway.at_work():
        emx("batch", "run", folder, "--out", out)
        before = jobs(gateway)
        emx("batch", "run", folder, "--out", out)
        assert jobs(gateway) == before
        (folder / "new.png").write_bytes(gateway.png())
        (folder / "ward 1" / "001.png").write_bytes(gateway.png(90))
        told = emx("batch", "run", folder, "--out", out, "--json")
    assert jobs(gateway) == before + Counter({"new.png": 1, "ward 1/001.png": 1})
    assert json.loads(told.stdout.splitlines()[-1])["counts"] == {"succeeded": 5}
    assert len(lines(out / "results.ndjson")) == 5


def test_failures_are_tried_again_on_request(gateway: RunningGateway, tmp_path: Path) -> None:
    folder, out = images(gateway, tmp_path / "scans", 2), tmp_path / "results"
    first = subprocess.Popen(
        [*EMX, "batch", "run", folder, "--out", out], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until(lambda: batches(gateway) and batches(gateway)[0]["state"] == "running", first)
    gateway.client.post(f"/v1/batches/{batches(gateway)[0]['id']}/cancel")
    assert first.wait(20) == 1
    assert "cancelled" in first.communicate()[1]
    with gateway.at_work():
        emx("batch", "run", folder, "--out", out, code=1)
        emx("batch", "run", folder, "--out", out, "--retry-failed")
    assert waiting_uploads(gateway) == 0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("moment", ["uploading", "reading"])
def test_a_run_continues_where_it_was_interrupted(
    gateway: RunningGateway, tmp_path: Path, sent: signal.Signals, moment: str
) -> None:
    folder, out = images(gateway, tmp_path / "scans", 100, size=400), tmp_path / "results"
    command = [*EMX, "batch", "run", folder, "--out", out]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if moment == "uploading":
        until(lambda: waiting_uploads(gateway) >= 10, process)
        process.send_signal(sent)
        stderr = process.communicate(timeout=30)[1]
    else:
        with gateway.at_work(0.01):
            until(lambda: ended(gateway) >= 10, process)
            process.send_signal(sent)
            stderr = process.communicate(timeout=30)[1]
    assert process.returncode == (130 if sent == signal.SIGINT else -signal.SIGKILL), stderr
    (batch,) = batches(gateway)
    assert batch["id"] in stderr  # told before it was over
    if sent == signal.SIGINT:
        assert "Run the same command again to continue" in stderr
        assert len(lines(out / "results.ndjson")) == 100
    if moment == "uploading":
        assert 10 <= waiting_uploads(gateway) < 100 and not jobs(gateway)
    with gateway.at_work():
        emx("batch", "run", folder, "--out", out)
    assert len(jobs(gateway)) == 100 and set(jobs(gateway).values()) == {1}
    assert len(batches(gateway)) == 1
    assert waiting_uploads(gateway) == 0
    assert all(line["report"] for line in lines(out / "results.ndjson"))


def test_a_large_folder_becomes_several_batches(
    gateway: RunningGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explainmyxray.cli.runs.batch_run._ROWS", 4)
    folder, out = images(gateway, tmp_path / "scans", 10), tmp_path / "results"
    with gateway.at_work():
        told = emx("batch", "run", folder, "--out", out, "--json").stdout.splitlines()
    assert [batch["total"] for batch in batches(gateway)] == [2, 4, 4]
    assert [json.loads(line)["batch"] for line in told[:3]] == [batch["id"] for batch in batches(gateway)][::-1]
    assert len(lines(out / "results.ndjson")) == 10 and len(jobs(gateway)) == 10


def test_lost_answers_make_no_second_batch(
    gateway: RunningGateway, tmp_path: Path, bad_connection: BadConnection
) -> None:
    folder, out = images(gateway, tmp_path / "scans", 3), tmp_path / "results"
    # Each file's upload is prepared; then the batch is created, and its answer is lost for good.
    bad_connection.faults[:] = [(429, {"Retry-After": "0"})] * 2 + ["drop"] + [0] * 3 + ["lose"] * 30
    result = emx("batch", "run", folder, "--out", out, "--url", bad_connection.url, code=1)
    assert "can't be reached" in result.stderr
    bad_connection.faults.clear()
    with gateway.at_work():
        emx("batch", "run", folder, "--out", out, "--url", bad_connection.url)
    assert len(batches(gateway)) == 1 and len(jobs(gateway)) == 3
    assert waiting_uploads(gateway) == 0


def test_a_run_belongs_to_one_process_and_one_server(gateway: RunningGateway, tmp_path: Path) -> None:
    file = tmp_path / "run.sqlite"
    with (
        open_run(file, "http://one"),
        pytest.raises(CannotContinue, match="Another emx"),
        open_run(file, "http://one"),
    ):
        pass
    with pytest.raises(CannotContinue, match="http://one, not by http://two"), open_run(file, "http://two"):
        pass
    file.write_bytes(b"something else" * 1000)
    with pytest.raises(OSError, match="can't be read"), open_run(file, "http://one"):
        pass
    assert file.stat().st_mode & 0o077 == 0


def test_an_erased_batch_is_a_sentence(gateway: RunningGateway, tmp_path: Path) -> None:
    folder, out = images(gateway, tmp_path / "scans", 2), tmp_path / "results"
    process = subprocess.Popen([*EMX, "batch", "run", folder, "--out", out], stderr=subprocess.DEVNULL, text=True)
    until(lambda: batches(gateway), process)
    process.kill()
    process.wait()
    gateway.client.delete(f"/v1/batches/{batches(gateway)[0]['id']}")
    said = " ".join(emx("batch", "run", folder, "--out", out, code=1).stderr.split())
    assert "was erased on the server" in said


@pytest.mark.parametrize(
    "command", [["batch", "submit", "--wait"], ["analyze", "--output", "reports"], ["analyze"]], ids=" ".join
)
def test_other_commands_continue_too_and_begin_anew_once_they_have_succeeded(
    gateway: RunningGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = images(gateway, tmp_path / "scans", 60, size=400)
    environment = {**os.environ, "COLUMNS": "200"}
    process = subprocess.Popen(
        [*EMX, *command, folder], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until(lambda: waiting_uploads(gateway) >= 5, process)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=30)[1]
    assert process.returncode == 130, stderr
    assert batches(gateway)[0]["id"] in stderr
    with gateway.at_work():
        emx(*command, folder)
    assert len(batches(gateway)) == 1
    assert len(jobs(gateway)) == 60 and waiting_uploads(gateway) == 0
    if "reports" in command:
        assert len(list((tmp_path / "reports" / "ward 1").iterdir())) == 20
    assert list((tmp_path / "config" / "explainmyxray" / "runs").iterdir()) == []
    with gateway.at_work():
        emx(*command, folder / "ward 0")
        emx(*command, folder / "ward 0")
    assert len(batches(gateway)) == 3


def test_batches_are_listed(gateway: RunningGateway) -> None:
    assert "No batches." in emx("batch", "list").stdout
    made = [submit_batch(gateway.ledger, NewBatch(), [Row(image="import:x")]).id for _ in range(3)]
    listed = [json.loads(line) for line in emx("batch", "list", "--json").stdout.splitlines()]
    assert [batch["id"] for batch in listed] == made[::-1]
    two = emx("batch", "list", "--limit", 2)
    assert made[2] in two.stdout and made[0] not in two.stdout
    assert "may be more than 2" in two.stderr


def test_names_of_a_batch_from_elsewhere_stay_below_the_output_folder(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    names = ["../../escaped.png", "/etc/passwd.png", "a.png", "a.dcm", "same.png", "same.png", "b\\c:d.png"]
    files = [("files", (name, gateway.png())) for name in names]
    batch = gateway.client.post("/v1/batches", files=files).json()["id"]
    with gateway.at_work():
        emx("batch", "status", batch, "--wait")
    emx("batch", "results", batch, "--output", tmp_path / "out", "--follow")
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.json")}
    assert written == {
        "coco.json",
        "reports/escaped.json",
        "reports/etc/passwd.json",
        "reports/a.png.json",
        "reports/a.dcm.json",
        "reports/same.png (row 4).json",
        "reports/same.png (row 5).json",
        "reports/b_c_d.json",
    }


def test_an_upload_is_asked_for_once(
    gateway: RunningGateway, tmp_path: Path, bad_connection: BadConnection
) -> None:
    """Each time counts against a tenant's quota."""
    folder, out = images(gateway, tmp_path / "scans", 5), tmp_path / "results"
    bad_connection.faults.clear()
    with gateway.at_work():
        emx("batch", "run", folder, "--out", out, "--url", bad_connection.url)
    asked = [path for method, path, _ in bad_connection.seen if (method, path) == ("POST", "/v1/uploads")]
    assert len(asked) == 5
