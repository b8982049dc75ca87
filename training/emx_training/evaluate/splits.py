"""Read phantoms that no model was trained on, as the worker reads.

This module doesn't import torch: the processes that draw import it, and the engine is imported while they draw.
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
"""The site of each split, by the split's name. All splits have the same seeds, which are never trained on.

*alpha* is the training site, and choices were made on *beta*. Neither training nor any choice has seen an image of
*gamma*: *zero-shot spatial generalisation* means the figures there.
"""

_DRAWN_AT_ONCE = 16
"""Phantoms that a process draws before it returns them."""

_MAX_RENDERERS = 8
"""Processes that draw, at most: each takes a second to start."""

_READING = 3
"""Steps of the progress bar for reading an image; drawing it is one step."""


@dataclass(frozen=True)
class RenderedPhantom:
    """A phantom as the process that drew it returns it.

    Attributes:
        seed: of the phantom.
        site: where it is taken.
        image: (height, width) uint8.
        truth: its true report.
    """

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
    """Read the first phantoms of a split with the worker's own code.

    Args:
        model: checkpoint directory or hub id.
        split: a name in ``SPLITS``.
        count: number of phantoms.
        adapter: directory of a PEFT adapter.
        device: auto, cpu or cuda.
        quantisation: of the weights.

    Raises:
        ModelError: if the model can't be loaded.
    """
    seeds, site = held_out_seeds(count), SPLITS[split]
    return read_phantoms(model, seeds, site, adapter=adapter, device=device, quantisation=quantisation)


def read_phantoms(
    model: Path | str, seeds: Sequence[int], site: SiteName, size: int = SIZE, **options: Any
) -> list[Prediction]:
    """Read phantoms with the worker's own code, and count tokens under teacher forcing.

    All are drawn before the first is read: on a CPU, drawing and reading would only slow each other down.

    Args:
        model: checkpoint directory or hub id.
        seeds: of the phantoms.
        site: where they are taken.
        size: pixels along each side of an image.
        options: ``adapter``, ``device`` and ``quantisation``, as ``PhantomReader`` takes them.

    Raises:
        ModelError: if the model can't be loaded.
    """
    count = len(seeds)
    groups = [seeds[at : at + _DRAWN_AT_ONCE] for at in range(0, count, _DRAWN_AT_ONCE)]
    renderers = ProcessPoolExecutor(min(os.cpu_count() or 1, _MAX_RENDERERS), mp_context=get_context("spawn"))
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"Reading phantoms of {site}", total=count * (1 + _READING))
        try:
            jobs = [renderers.submit(_draw, group, site, size) for group in groups]
            for job in jobs:
                job.add_done_callback(partial(_advance, progress, bar))
            from emx_training.evaluate.phantom_reader import PhantomReader

            reader = PhantomReader(model, **options)
            phantoms = [phantom for job in jobs for phantom in job.result()]
        finally:
            renderers.shutdown(cancel_futures=True)
        predictions: list[Prediction] = []
        for at in range(0, count, reader.batch):
            batch = phantoms[at : at + reader.batch]
            predictions += reader.read(batch)
            progress.advance(bar, _READING * len(batch))
    return predictions


def _draw(seeds: Sequence[int], site: SiteName, size: int) -> list[RenderedPhantom]:
    drawn = ((seed, render(seed, size, site)) for seed in seeds)
    return [RenderedPhantom(seed, site, one.image, str(report_of(one.findings))) for seed, one in drawn]


def _advance(progress: Progress, bar: TaskID, job: "Future[list[RenderedPhantom]]") -> None:
    if not job.cancelled() and not job.exception():
        progress.advance(bar, len(job.result()))
