"""Phantoms that no model was trained on, read as the worker reads.

No torch here: the processes that draw import this module, and the engine is imported while they draw.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, TaskID

from emx_training.data.phantom_reports import report_of
from emx_training.evaluate.predictions import Prediction
from emx_training.phantoms import SIZE, SiteName, held_out_seeds, render

SPLITS: dict[str, SiteName] = {"heldout": "alpha", "dev_site": "beta", "unseen_site": "gamma"}
"""The site of each split, by its name; the seeds are the same, and never trained on.

*alpha* is the site of training, *beta* the one that choices were made on, and of *gamma* no training and no choice
has ever seen an image: the figures there are what *zero-shot spatial generalisation* means here.
"""

_DRAWN_AT_ONCE = 16
_PAINTERS = 8
"""Processes that draw, at most: each takes a second to start."""

_READING = 3
"""Steps of the progress bar for reading a study, where drawing it is one."""


@dataclass(frozen=True)
class Drawing:
    """A phantom as it comes from the process that drew it. ``image`` is (height, width) uint8."""

    seed: int
    site: SiteName
    image: NDArray[np.uint8]
    truth: str


def read_split(
    model: Path | str,
    split: str,
    count: int,
    *,
    adapter: Path | str | None = None,
    device: str = "auto",
    quantisation: str = "auto",
) -> list[Prediction]:
    """The worker's own reading of the first ``count`` phantoms of a split. Raises ModelError."""
    seeds, site = held_out_seeds(count), SPLITS[split]
    return read_phantoms(model, seeds, site, adapter=adapter, device=device, quantisation=quantisation)


def read_phantoms(
    model: Path | str, seeds: Sequence[int], site: SiteName, size: int = SIZE, **options: Any
) -> list[Prediction]:
    """The worker's own reading of phantoms drawn ``size`` pixels large, with the counts of ``TeacherForcing``.

    ``options`` are ``adapter``, ``device`` and ``quantisation`` as the worker's ``load_model`` takes them.
    All are drawn before the first is read: on a CPU, each would only slow down the other.

    Raises emx_worker.model.loading.ModelError.
    """
    count = len(seeds)
    groups = [seeds[at : at + _DRAWN_AT_ONCE] for at in range(0, count, _DRAWN_AT_ONCE)]
    painters = ProcessPoolExecutor(min(os.cpu_count() or 1, _PAINTERS), mp_context=get_context("spawn"))
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"Reading {site}", total=count * (1 + _READING))
        try:
            jobs = [painters.submit(_draw, group, site, size) for group in groups]
            for job in jobs:
                job.add_done_callback(partial(_advance, progress, bar))
            from emx_training.evaluate.phantom_reader import Reader

            reader = Reader(model, **options)
            drawings = [drawing for job in jobs for drawing in job.result()]
        finally:
            painters.shutdown(cancel_futures=True)
        predictions: list[Prediction] = []
        for at in range(0, count, reader.batch):
            batch = drawings[at : at + reader.batch]
            predictions += reader.read(batch)
            progress.advance(bar, _READING * len(batch))
    return predictions


def _draw(seeds: Sequence[int], site: SiteName, size: int) -> list[Drawing]:
    drawn = ((seed, render(seed, size, site)) for seed in seeds)
    return [Drawing(seed, site, one.image, str(report_of(one.findings))) for seed, one in drawn]


def _advance(progress: Progress, bar: TaskID, job: "Future[list[Drawing]]") -> None:
    if not job.cancelled() and not job.exception():
        progress.advance(bar, len(job.result()))
