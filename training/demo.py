"""Makes the demo model, from nothing to a checkpoint with its card.

``python -m training.demo --output models/demo --steps 3000 --cache runs/phantoms --seed 0``
"""

import argparse
import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from transformers import Gemma3ForConditionalGeneration

from shared.grammar import MalformedReport, parse
from training.architecture import build_processor, demo_config, phantom_manifest, random_model, save_checkpoint
from training.baselines import best_constant_report, most_frequent_report
from training.evaluation import PhantomReader
from training.lessons import Batch, CellHead, Lessons, losses
from training.model_card import Made, Measured, model_card
from training.phantom_cache import SIZE, cached_phantoms
from training.phantoms import held_out_seeds, render, training_seeds
from training.scoring import Prediction, score
from worker.checkpoint import MANIFEST

NAME = "explainmyxray-demo"
BATCH = 16
PEAK_RATE = 8e-4
WARM_UP_STEPS = 100
SOFTNESS = (40.0, 8.0)
"""Bins that a true location is spread over, at the start and at the end (8 bins are one pixel)."""

VALIDATION_BLOCK = 99
"""Block of training seeds that the learning curve is watched on; no other run uses it."""

HELD_OUT = 500
LARGE, LARGE_COUNT = 512, 200
SAMPLE_SIZE = 1024
_REPORT_EVERY, _SAVE_EVERY = 50, 150.0


@dataclass
class Run:
    """Everything that a run needs to go on after it was interrupted.

    Attributes:
        elapsed: seconds of training so far.
        curve: one entry for each 50 steps.
    """

    model: Gemma3ForConditionalGeneration
    head: CellHead
    optimizer: torch.optim.Optimizer
    step: int = 0
    elapsed: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def begin(cls, seed: int) -> "Run":
        config = demo_config()
        torch.manual_seed(seed)
        model, head = random_model(seed, config), CellHead(config.vision_config.hidden_size)
        parameters = [*model.parameters(), *head.parameters()]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
        return cls(model, head, torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98)))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / "state.part"
        torch.save(
            {
                "model": self.model.state_dict(),
                "head": self.head.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "elapsed": self.elapsed,
                "curve": self.curve,
            },
            part,
        )
        part.rename(folder / "state.pt")
        (folder / "curve.json").write_text(json.dumps(self.curve, indent=1) + "\n", encoding="utf-8")

    def restore(self, folder: Path) -> None:
        state = torch.load(folder / "state.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed, self.curve = state["step"], state["elapsed"], state["curve"]


def train(run: Run, lessons: Lessons, watched: Lessons, steps: int, work: Path, seed: int) -> None:
    """Train until ``run.step`` reaches ``steps``, saving the state every few minutes."""
    batches = _forever(lessons, np.random.default_rng([seed, run.step]))
    columns = (
        TextColumn("Training"), BarColumn(), TextColumn("step {task.fields[step]}  loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    recent: list[tuple[float, float, float]] = []
    saved, clock = time.monotonic(), time.monotonic()
    with Progress(*columns) as progress:
        bar = progress.add_task("train", total=steps, completed=run.step, step=run.step, loss=math.nan)
        while run.step < steps:
            recent.append(_step(run, next(batches), run.step / steps))
            if run.step % _REPORT_EVERY == 0:
                run.curve.append(_entry(run, recent, watched))
                progress.update(bar, step=run.step, loss=run.curve[-1]["words"])
                progress.console.print(json.dumps(run.curve[-1]), soft_wrap=True)
                recent.clear()
            now = time.monotonic()
            run.elapsed, clock = run.elapsed + now - clock, now
            progress.update(bar, completed=run.step)
            if now - saved > _SAVE_EVERY:
                run.save(work)
                saved = now
    run.save(work)


def _step(run: Run, batch: Batch, done: float) -> tuple[float, float, float]:
    """One update; ``done`` is the share of the run that is over, 0 to 1."""
    rate = PEAK_RATE * min(1.0, (run.step + 1) / WARM_UP_STEPS) * (0.01 + 0.99 * _cosine(done))
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.model.train()
    loss, _ = losses(run.model, run.head, batch, _softness(done))
    run.optimizer.zero_grad()
    loss.total.backward()
    nn.utils.clip_grad_norm_([*run.model.parameters(), *run.head.parameters()], 1.0)
    run.optimizer.step()
    run.step += 1
    return loss.words.item(), loss.locations.item(), loss.cells.item()


@torch.no_grad()
def _entry(run: Run, recent: list[tuple[float, float, float]], watched: Lessons) -> dict[str, float]:
    """A point of the learning curve: mean losses of late, and how the watched phantoms are read."""
    words, locations, cells = np.mean(recent, axis=0)
    run.model.eval()
    batch = watched.batch(np.arange(len(watched.phantoms)))
    loss, _ = losses(run.model, run.head, batch, SOFTNESS[1])
    return {
        "step": run.step,
        "minutes": round(run.elapsed / 60, 2),
        "words": round(float(words), 4),
        "locations": round(float(locations), 4),
        "cells": round(float(cells), 4),
        "watched_words": round(loss.words.item(), 4),
        "watched_locations": round(loss.locations.item(), 4),
    }


def evaluate(folder: Path, training_texts: list[str], work: Path) -> tuple[Measured, list[Prediction]]:
    """Score the saved checkpoint and the constants on held-out phantoms; the readings go to ``work``."""
    reader = PhantomReader(folder)
    readings = reader.read_phantoms(held_out_seeds(HELD_OUT), SIZE)
    large = reader.read_phantoms(held_out_seeds(LARGE_COUNT), LARGE)
    for name, predictions in (("results", readings), (f"results-{LARGE}", large)):
        listed = [prediction.model_dump() for prediction in predictions]
        (work / f"{name}.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    constants = [
        score(reading.model_copy(update={"prediction": text}) for reading in readings)
        for text in (most_frequent_report(training_texts), best_constant_report(training_texts))
    ]
    return Measured(score(readings), score(large), LARGE, *constants), readings


def choose_sample(folder: Path, readings: list[Prediction]) -> int:
    """A held-out seed that shows 2 or 3 findings well: the best of those that were read best."""
    ranked = sorted(readings, key=_worst_match, reverse=True)[:16]
    large = PhantomReader(folder).read_phantoms([int(reading.id) for reading in ranked], SAMPLE_SIZE)
    return int(max(large, key=_worst_match).id)


def _worst_match(reading: Prediction) -> float:
    """Lowest IoU of a study with 2 or more findings that were all told; else -1."""
    try:
        told = len(parse(reading.prediction).locations)
    except MalformedReport:
        return -1.0
    scores = score([reading])
    if told < 2 or scores.exact_findings < 1:
        return -1.0
    return min(scores.term_iou.values())


def _forever(lessons: Lessons, random: np.random.Generator) -> Iterator[Batch]:
    while True:
        yield from lessons.batches(BATCH, random)


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _softness(done: float) -> float:
    wide, narrow = SOFTNESS
    return wide * (narrow / wide) ** min(done, 1.0)


def _revision(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=3000, help=f"updates, of {BATCH} phantoms each")
    parser.add_argument("--cache", type=Path, default=Path("runs/phantoms"), help="folder of rendered phantoms")
    parser.add_argument("--work", type=Path, default=Path("runs/demo"), help="folder of the run's own files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--phantoms", type=int, default=20_000)
    parser.add_argument("--resume", action="store_true", help="go on from the state in --work")
    options = parser.parse_args()

    processor = build_processor(demo_config())
    phantoms = cached_phantoms(training_seeds(options.phantoms, options.seed), options.cache)
    watched = cached_phantoms(training_seeds(100, VALIDATION_BLOCK), options.cache)
    run = Run.begin(options.seed)
    if options.resume:
        run.restore(options.work)
    lessons, watched_lessons = Lessons(phantoms, processor), Lessons(watched, processor)
    train(run, lessons, watched_lessons, options.steps, options.work, options.seed)

    save_checkpoint(run.model, processor, phantom_manifest(NAME, "unfinished"), options.output)
    revision = _revision(options.output)
    (options.output / MANIFEST).write_text(phantom_manifest(NAME, revision).model_dump_json(indent=2) + "\n")
    (options.output / "curve.json").write_text(json.dumps(run.curve) + "\n", encoding="utf-8")

    measured, readings = evaluate(options.output, phantoms.texts, options.work)
    sample = choose_sample(options.output, readings)
    Image.fromarray(render(sample, SAMPLE_SIZE).image).save(options.output / "sample.png", optimize=True)
    made = Made(
        command=f"python -m training.demo --output {options.output} --steps {options.steps}"
        f" --phantoms {options.phantoms} --seed {options.seed}",
        seed=options.seed,
        parameters=run.model.num_parameters(),
        phantoms=options.phantoms,
        minutes=run.elapsed / 60,
        steps=run.step,
        seen=run.step * BATCH,
        threads=torch.get_num_threads(),
    )
    card = model_card(made, measured, sample, SAMPLE_SIZE)
    (options.output / "README.md").write_text(card, encoding="utf-8")
    print(card)


if __name__ == "__main__":
    main()
