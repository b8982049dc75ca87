"""Readers' feedback by client and command, from a report to an adapter that was trained on its corrections."""

import asyncio
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from emx_shared.contracts.report import Box
from emx_shared.settings import settings
from emx_training.finetune.examples import read_boxes
from emx_training.finetune.loop import STATE
from emx_training.finetune_phase1 import main as phase1
from emx_training.finetune_phase2 import main as phase2
from explainmyxray import (
    ApiError,
    AsyncClient,
    Client,
    Conflict,
    FeedbackExport,
    InvalidRequest,
    NotFound,
    ReviewedLocation,
)
from explainmyxray.cli.main import app
from support.checkpoints import base
from support.gateway import RunningGateway, StartGateway

__all__ = ["base"]

AGREED = ReviewedLocation(of=0, verdict="agreed")
REJECTED = ReviewedLocation(of=0, verdict="rejected")
WIDE = Box(xmin=8, ymin=6, xmax=72, ymax=54)
ADDED = ReviewedLocation(verdict="added", label="cardiomegaly", box=WIDE)
MOVED = ReviewedLocation(of=0, verdict="corrected", label="mass", laterality="right", box=WIDE)


@pytest.fixture
def own(redis_url: str, tmp_path: Path, start_gateway: StartGateway) -> Iterator[RunningGateway]:
    """A gateway on a store of its own, where nothing was reviewed yet."""
    with start_gateway(redis_url, tmp_path / "store") as made:
        yield made


def read_job(gateway: RunningGateway) -> str:
    job = str(gateway.submit(gateway.png()).json()["id"])
    gateway.read_by_a_worker(job)
    return job


def test_a_client_submits_lists_and_counts(own: RunningGateway) -> None:
    one, two = read_job(own), read_job(own)
    with Client(own.url) as client:
        first = client.feedback.submit(one, "AB", "agree", locations=[AGREED])
        assert (first.job, first.version, first.comment) == (one, 1, None)
        assert first.locations[0].label == "pleural effusion" and first.locations[0].colour
        with pytest.raises(Conflict, match="newest version is 1"):
            client.feedback.submit(one, "CD", "agree")
        second = client.feedback.submit(
            client.jobs.get(one), "CD", "disagree", comment="Higher.", locations=[MOVED, ADDED], after=1
        )
        assert second.locations[0].box == WIDE and second.locations[1].of is None
        assert client.feedback.versions(one) == (first, second)
        third = client.feedback.submit(two, "AB", "agree")
        assert sorted(client.feedback.list(), key=lambda each: each.job) == sorted(
            [second, third], key=lambda each: each.job
        )
        assert list(client.feedback.list(verdict="disagree", label="mass")) == [second]
        counted = client.feedback.agreement()
        assert (counted.jobs, counted.agree, counted.disagree) == (2, 1, 1)
        assert [(each.label, each.corrected, each.added) for each in counted.findings] == [
            ("cardiomegaly", 0, 1),
            ("pleural effusion", 1, 0),
        ]
        summary = client.jobs.get(one).feedback
        assert summary and (summary.version, summary.reviewer, summary.verdict) == (2, "CD", "disagree")
        assert next(iter(client.jobs.list())).feedback is None
        assert [image["file_name"] for image in client.feedback.coco()["images"]] == [f"{one}.png"]
        with pytest.raises(InvalidRequest):
            client.feedback.submit(
                two, "AB", "agree", locations=[ReviewedLocation(of=9, verdict="agreed")], after=1
            )
        with pytest.raises(NotFound):
            client.feedback.versions("none")


def test_pages_are_fetched_as_they_are_needed(own: RunningGateway) -> None:
    jobs = sorted(read_job(own) for _ in range(3))

    async def listed() -> list[str]:
        async with AsyncClient(own.url) as client:
            for job in jobs:
                await client.feedback.submit(job, "AB", "agree")
            sent = client._session.send

            async def few_at_a_time(request: Any) -> Any:
                if request.path == "/v1/feedback":
                    request.params["limit"] = "1"
                return await sent(request)

            client._session.send = few_at_a_time  # type: ignore[method-assign]
            return [each.job async for each in client.feedback.list()]

    assert asyncio.run(listed()) == jobs


def test_an_export_is_a_folder_that_training_reads(own: RunningGateway, tmp_path: Path) -> None:
    moved, normal, gone = (read_job(own) for _ in range(3))
    folder = tmp_path / "deep" / "feedback"

    async def exported() -> FeedbackExport:
        async with AsyncClient(own.url) as client:
            return await client.feedback.export(folder)

    with Client(own.url) as client:
        client.feedback.submit(moved, "AB", "disagree", locations=[MOVED, ADDED])
        client.feedback.submit(normal, "AB", "disagree", locations=[REJECTED])
        client.feedback.submit(gone, "AB", "agree", locations=[AGREED])
        own.ledger.store.delete_below(f"jobs/{gone}/input-")  # as retention does
        done = client.feedback.export(folder)
        assert done == FeedbackExport(folder / "boxes.csv", images=2, boxes=2, missing=(f"{gone}.png",))
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            ["boxes.csv", f"{moved}.png", f"{normal}.png"]
        )
        first = (folder / f"{moved}.png").read_bytes()
        assert first == client.jobs.image(moved)
        examples = {example.image.stem: str(example.answer) for example in read_boxes(done.table, folder)}
        assert "mass right <loc" in examples[moved] and "cardiomegaly <loc" in examples[moved]
        assert "none" in examples[normal]
        (folder / f"{moved}.png").write_bytes(b"what is there already isn't fetched again")
        client.feedback.submit(normal, "AB", "disagree", locations=[REJECTED, ADDED], after=1)
    assert asyncio.run(exported()).boxes == 3
    assert (folder / f"{moved}.png").read_bytes().startswith(b"what is there")


@pytest.mark.parametrize(
    "table",
    ["nothing,at,all\r\n", "image,term,xmin,ymin,xmax,ymax,patient\r\n../../x.png,,,,,,\r\n"],
    ids=["no table", "a path"],
)
def test_a_table_that_is_not_the_servers_is_refused(own: RunningGateway, tmp_path: Path, table: str) -> None:
    with Client(own.url) as client:
        sent = client._session.send

        def answered(request: Any) -> Any:
            if request.path != "/v1/feedback.csv":
                return sent(request)
            answer = httpx.Response(200, content=table.encode(), request=httpx.Request("GET", own.url))
            return request.result(answer, 1)

        client._session.send = answered  # type: ignore[method-assign]
        with pytest.raises(ApiError, match="doesn't answer as ExplainMyXray does"):
            client.feedback.export(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_is_trained_on_an_export(own: RunningGateway, base: Path, tmp_path: Path) -> None:
    jobs = [read_job(own) for _ in range(3)]
    folder, first, second = (tmp_path / name for name in ("export", "phase1", "phase2"))
    with Client(own.url) as client:
        for job, places in zip(jobs, ([MOVED], [REJECTED], [ADDED]), strict=True):
            client.feedback.submit(job, "AB", "disagree", locations=places)
        table = client.feedback.export(folder).table
    reports = tmp_path / "reports.csv"
    with reports.open("w", newline="") as stream:
        rows = [(f"{job}.png", "There is a mass.", "Mass.") for job in jobs]
        csv.writer(stream).writerows([("image", "findings", "impression"), *rows])
    common = ["--base", base, "--quantisation", "none", "--batch", "4", "--lr", "0.01"]
    text = ["--csv", reports, "--validation", reports, "--images", folder, "--lora_r", "4"]
    phase1(list(map(str, [*text, *common, "--output", first, "--epochs", "1"])))
    boxes = ["--csv", table, "--phase1_ckpt", first]
    phase2(list(map(str, [*boxes, *common, "--output", second, "--epochs", "2"])))  # two steps of all images
    trained = torch.load(second / STATE, weights_only=True)["at"]
    assert trained["epoch"] == 2 and len(trained["curve"]) == 2
    assert (second / "adapter_model.safetensors").exists()


# Commands


def emx(*arguments: object, ok: bool = True) -> Result:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert (result.exit_code == 0) == ok, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_commands_export_and_count(own: RunningGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMX_URL", own.url)
    monkeypatch.delenv("EMX_API_KEY", raising=False)
    monkeypatch.setattr("explainmyxray.cli.terminal.console.width", 200)
    settings.cache_clear()
    job, gone = read_job(own), read_job(own)
    with Client(own.url) as client:
        client.feedback.submit(job, "AB", "agree", locations=[AGREED, ADDED])
        client.feedback.submit(gone, "AB", "agree", locations=[AGREED])
    own.ledger.store.delete_below(f"jobs/{gone}/input-")
    folder = tmp_path / "out"
    result = emx("feedback", "export", "--output", folder)
    assert "1 images with 2 boxes" in result.stdout.replace("\n", "")
    assert "1 images are no longer stored" in result.stderr
    with Image.open(folder / f"{job}.png") as image:
        assert image.size == (80, 60)
    assert json.loads(emx("feedback", "export", "--output", folder, "--json").stdout) == {
        "table": str(folder / "boxes.csv"),
        "images": 1,
        "boxes": 2,
        "missing": [f"{gone}.png"],
    }
    text = emx("feedback", "agreement").stdout
    assert "2 reports reviewed: 2 agree, 0 disagree." in text
    row = next(line for line in text.splitlines() if "effusion" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["pleural effusion", "2", "0", "0", "0"]
    assert json.loads(emx("feedback", "agreement", "--json").stdout)["jobs"] == 2
    (tmp_path / "file").write_text("")
    emx("feedback", "export", "--output", tmp_path / "file", ok=False)
    assert "Cannot write into" in emx("feedback", "export", "--output", tmp_path / "file" / "x", ok=False).stderr
    settings.cache_clear()
