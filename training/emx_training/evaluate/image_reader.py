"""Read image files with the worker's engine, as a worker reads what is submitted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from transformers.utils import logging

from emx_shared.contracts.report import ModelProvenance
from emx_shared.imaging import BadImage, decode
from emx_training.evaluate.phantom_reader import prediction_of
from emx_training.evaluate.predictions import Prediction
from emx_training.evaluate.true_reports import TrueReport
from emx_worker.engine.engine import Engine
from emx_worker.image_task import ImageTask
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


def read_images(
    model: Path | str,
    reports: Sequence[TrueReport],
    *,
    adapter: Path | str | None = None,
    device: str = "auto",
    quantisation: str = "auto",
) -> Reading:
    """Read a table's images, and show the progress on standard error.

    Args:
        model: checkpoint directory or hub id.
        reports: of the images.
        adapter: directory of a PEFT adapter; one of phase 1 writes text, and whatever it likes of locations.
        device: auto, cpu or cuda.
        quantisation: of the weights.

    Raises:
        ModelError: if the model can't be loaded.
    """
    logging.disable_progress_bar()
    loaded = load_model(model, adapter=adapter, device=device, quantisation=quantisation)
    engine = Engine(loaded)
    predictions: dict[str, Prediction] = {}
    unreadable: dict[str, str] = {}
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("Reading images", total=len(reports))
        for start in range(0, len(reports), _BATCH):
            batch = reports[start : start + _BATCH]
            tasks = []
            for one in batch:
                try:
                    decoded = decode(one.image.read_bytes())
                except (BadImage, OSError) as error:
                    unreadable[one.name] = str(error)
                else:
                    tasks.append(ImageTask(id=one.name, image=decoded.image, facts=decoded.facts))
            truth = {one.name: str(one.report) for one in batch}
            for task, answer in zip(tasks, engine.generate(tasks), strict=True):
                predictions[task.id] = prediction_of(task.id, truth[task.id], answer)
            progress.advance(bar, len(batch))
    return Reading(loaded.provenance, predictions, unreadable)
