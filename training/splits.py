"""Phantoms that no model was trained on, read as the worker reads."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import Progress

from shared.report import ImageFacts
from training.phantom_cache import SIZE
from training.phantoms import Phantom, held_out_seeds, render
from training.reports import report_of
from training.scoring import Prediction
from worker.engine.engine import Engine
from worker.loading import load_model
from worker.study import Reading, Study

SPLITS = {"heldout": held_out_seeds}
"""Seeds of each split, by its name."""

_GROUP = 64


def read_split(
    model: Path | str, split: str, count: int, *, adapter: str | None = None, quantisation: str = "auto"
) -> list[Prediction]:
    """The worker's own reading of the first ``count`` phantoms of a split. Raises worker.loading.ModelError."""
    engine = Engine(load_model(model, adapter=adapter, quantisation=quantisation))
    seeds = list(SPLITS[split](count))
    predictions: list[Prediction] = []
    draw = partial(render, size=SIZE)
    with (
        ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool,
        Progress(console=Console(stderr=True)) as progress,
    ):
        bar = progress.add_task(f"Reading {split}", total=count)
        drawn = pool.map(draw, seeds, chunksize=8)
        for at in range(0, count, _GROUP):
            group = [next(drawn) for _ in seeds[at : at + _GROUP]]
            predictions += _read(engine, seeds[at : at + _GROUP], group)
            progress.advance(bar, len(group))
    return predictions


def _read(engine: Engine, seeds: Sequence[int], drawn: Sequence[Phantom]) -> list[Prediction]:
    studies = [_study(seed, phantom) for seed, phantom in zip(seeds, drawn, strict=True)]
    return [
        Prediction(
            id=str(seed),
            truth=str(report_of(phantom.findings)),
            prediction=answer.text if isinstance(answer, Reading) else "",
        )
        for seed, phantom, answer in zip(seeds, drawn, engine.write(studies), strict=True)
    ]


def _study(seed: int, phantom: Phantom) -> Study:
    digest = hashlib.sha256(phantom.image.tobytes()).hexdigest()
    height, width = phantom.image.shape
    facts = ImageFacts(width=width, height=height, media_type="image/png", sha256=digest)
    return Study(id=str(seed), image=Image.fromarray(phantom.image), facts=facts)
