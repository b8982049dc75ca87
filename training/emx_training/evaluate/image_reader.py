"""Read image files with the worker's engine, as a worker reads what is submitted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from transformers.utils import logging

from emx_shared.contracts.report import ModelProvenance
from emx_shared.imaging import BadImage, decode
from emx_training.evaluate.phantom_reader import prediction_of
from emx_training.evaluate.predictions import Prediction
from emx_training.evaluate.true_reports import TrueReport
from emx_worker.engine.engine import Engine
from emx_worker.image_task import Generation, ImageFault, ImageTask
from emx_worker.model.loading import load_model

_BATCH = 32
"""Images that are decoded and handed to the engine together."""


@dataclass(frozen=True)
class Reading:
    """What a model made of a table's images.

    Attributes:
        model: which model it was.
        predictions: by the image's path in the table.
        unreadable: why an image couldn't be decoded, by the same.
    """

    model: ModelProvenance
    predictions: dict[str, Prediction]
    unreadable: dict[str, str]


@dataclass(frozen=True)
class FileReading:
    """What a model made of image files, by the names that these were given.

    Attributes:
        model: which model it was.
        answers: the engine's, of each image that could be decoded.
        unreadable: why an image couldn't be decoded.
    """

    model: ModelProvenance
    answers: dict[str, Generation | ImageFault]
    unreadable: dict[str, str]


def read_files(
    model: Path | str,
    files: Mapping[str, Path],
    *,
    adapter: Path | str | None = None,
    device: str = "auto",
    quantisation: str = "auto",
) -> FileReading:
    """Read image files, and show the progress on standard error.

    Args:
        model: checkpoint directory or hub id.
        files: the images, by any names.
        adapter: directory of a PEFT adapter; one of phase 1 writes text, and whatever it likes of locations.
        device: auto, cpu or cuda.
        quantisation: of the weights.

    Raises:
        ModelError: if the model can't be loaded.
    """
    logging.disable_progress_bar()
    loaded = load_model(model, adapter=adapter, device=device, quantisation=quantisation)
    engine = Engine(loaded)
    answers: dict[str, Generation | ImageFault] = {}
    unreadable: dict[str, str] = {}
    left = iter(files.items())
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("Reading images", total=len(files))
        while batch := list(islice(left, _BATCH)):
            tasks = []
            for name, file in batch:
                try:
                    decoded = decode(file.read_bytes())
                except (BadImage, OSError) as error:
                    unreadable[name] = str(error)
                else:
                    tasks.append(ImageTask(id=name, image=decoded.image, facts=decoded.facts))
            answers.update(zip([task.id for task in tasks], engine.generate(tasks), strict=True))
            progress.advance(bar, len(batch))
    return FileReading(loaded.provenance, answers, unreadable)


def read_images(model: Path | str, reports: Sequence[TrueReport], **options: Any) -> Reading:
    """Read a table's images, and show the progress on standard error.

    Args:
        model: checkpoint directory or hub id.
        reports: of the images.
        options: ``adapter``, ``device`` and ``quantisation``, as ``read_files`` takes them.

    Raises:
        ModelError: if the model can't be loaded.
    """
    found = read_files(model, {one.name: one.image for one in reports}, **options)
    truth = {one.name: str(one.report) for one in reports}
    predictions = {name: prediction_of(name, truth[name], answer) for name, answer in found.answers.items()}
    return Reading(found.model, predictions, found.unreadable)
