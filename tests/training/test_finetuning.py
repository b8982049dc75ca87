"""Both phases, for a few steps, on a tiny Gemma 3 whose vocabulary has no locations, as MedGemma's."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from shared.grammar import parse
from shared.report import ImageFacts
from shared.settings import ROOT
from training.examples import IGNORED, Collator, read_boxes, read_reports
from training.finetune_phase1 import main as phase1
from training.finetune_phase2 import main as phase2
from training.finetuning import STATE
from worker.checkpoint import read_processor
from worker.engine.engine import Engine
from worker.loading import load_model
from worker.study import Reading, Study

pytestmark = pytest.mark.filterwarnings("ignore")
BOXES = ("image", "term", "xmin", "ymin", "xmax", "ymax")
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images, bright on the left or on the right, with what that means."""
    folder = tmp_path_factory.mktemp("data")
    reports: list[tuple[object, ...]] = []
    boxes: list[tuple[object, ...]] = []
    for number in range(12):
        side = "left" if number % 2 else "right"
        image = Image.new("L", (40, 40), 30)
        image.paste(220, (24, 20, 36, 36) if side == "left" else (4, 20, 16, 36))
        image.save(folder / f"{number}.png")
        reports.append((f"{number}.png", f"There is fluid on the {side}.", f"Effusion on the {side}."))
        at = (0.6, 0.5, 0.9, 0.9) if side == "left" else (0.1, 0.5, 0.4, 0.9)
        boxes.append((f"{number}.png", f"pleural effusion {side}", *at))
    _table(folder / "train.csv", ("image", "findings", "impression"), reports[:10])
    _table(folder / "validation.csv", ("image", "findings", "impression"), reports[10:])
    _table(folder / "boxes.csv", ("image", "term", "xmin", "ymin", "xmax", "ymax"), [*boxes, boxes[0]][:12])
    return folder


def progressed(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(output / STATE, weights_only=True)["at"]
    return found


def phase1_options(base: Path, data: Path, output: Path, *more: str) -> list[str]:
    named = {"--csv": data / "train.csv", "--images": data, "--output": output, "--base": base}
    fixed = ["--lora_r", "4", "--batch", "4", "--lr", "0.01", "--quantisation", "none"]
    return [*(str(part) for pair in named.items() for part in pair), *fixed, *more]


def test_both_phases_teach_a_model_and_the_worker_reads_with_it(base: Path, data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "phase1", tmp_path / "phase2"
    phase1(phase1_options(base, data, first, "--epochs", "6"))
    losses = progressed(first)["losses"]
    assert losses[-1] < losses[0]
    assert all("lora" in name for name in load_file(first / WEIGHTS))  # text layers alone

    named = {"--csv": data / "boxes.csv", "--output": second, "--base": base, "--phase1_ckpt": first}
    fixed = ["--batch", "4", "--lr", "0.01", "--quantisation", "none", "--epochs", "6"]
    phase2([*(str(part) for pair in named.items() for part in pair), *fixed])
    losses = progressed(second)["losses"]
    assert min(losses[1:]) < losses[0]
    names = set(load_file(second / WEIGHTS))
    assert any("multi_modal_projector" in name for name in names)
    assert any("trainable_tokens" in name for name in names)
    assert not any("vision_tower" in name for name in names)

    for quantisation in ("none", "int4", "nf4"):
        loaded = load_model(base, adapter=second, quantisation=quantisation)
        facts = ImageFacts(width=40, height=40, media_type="image/png", sha256="0" * 64)
        study = Study(id="1", image=Image.open(data / "0.png"), facts=facts)
        (reading,) = Engine(loaded).write([study])
        assert isinstance(reading, Reading)
        parse(reading.text)


def test_a_killed_run_ends_as_one_that_was_left_alone(base: Path, data: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = ("--epochs", "4", "--save_every", "1")
    phase1(phase1_options(base, data, whole, *options))
    command = [sys.executable, "-m", "training.finetune_phase1", *phase1_options(base, data, killed, *options)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 120
    while not ((killed / STATE).exists() and progressed(killed)["epoch"] >= 1):
        assert process.poll() is None and time.monotonic() < give_up
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert progressed(killed)["epoch"] < 4
    phase1(phase1_options(base, data, killed, *options))
    one, other = load_file(whole / WEIGHTS), load_file(killed / WEIGHTS)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name])


def test_the_loss_falls_on_the_answer_and_not_on_what_a_table_cannot_know(base: Path, data: Path) -> None:
    processor = read_processor(base)
    batch = Collator(processor)(read_reports(data / "train.csv", data)[:2])
    tokenizer = processor.tokenizer
    answer = batch.input_ids[0, -batch.labels.shape[1] :]
    assert tokenizer.decode(answer).startswith(
        "FINDINGS: There is fluid on the right.\nLOCATIONS: none\nIMPRESSION:"
    )
    trained = tokenizer.decode(answer[batch.labels[0] != IGNORED])
    assert "LOCATIONS" not in trained
    assert trained.endswith("<end_of_turn>")


@pytest.mark.parametrize(
    ("columns", "row", "expected"),
    [
        (("image", "term"), ("0.png", "mass left"), "no column xmin"),
        (BOXES, ("none.png", "", "", "", "", ""), "row 2, column image"),
        (BOXES, ("0.png", "gout", "0", "0", "1", "1"), "row 2, column term"),
        (BOXES, ("0.png", "mass left", "0.5", "0", "0.2", "1"), "row 2: the box is inverted"),
        (BOXES, ("0.png", "mass left", "a", "0", "1", "1"), "row 2: xmin, ymin, xmax, ymax must be numbers"),
    ],
)
def test_a_bad_table_is_refused_before_anything_is_trained(
    base: Path, data: Path, tmp_path: Path, columns: tuple[str, ...], row: tuple[str, ...], expected: str
) -> None:
    table = tmp_path / "boxes.csv"
    _table(table, columns, [row])
    with pytest.raises(ValueError, match=expected):
        read_boxes(table, data)


def test_an_adapter_of_another_base_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    named = {"--csv": data / "boxes.csv", "--output": tmp_path / "out", "--base": base, "--phase1_ckpt": tmp_path}
    with pytest.raises(SystemExit, match="holds no adapter of phase 1"):
        phase2([str(part) for pair in named.items() for part in pair])


def _table(path: Path, columns: tuple[str, ...], rows: list[tuple[object, ...]] | list[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
