"""Read phantoms with the worker's engine, and count tokens under teacher forcing."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from transformers.utils import logging

from emx_shared.contracts.report import ImageFacts
from emx_training.evaluate.predictions import Prediction
from emx_training.evaluate.splits import RenderedPhantom
from emx_training.evaluate.teacher_forcing import TeacherForcing, kept_image_tokens
from emx_worker.engine.engine import Engine
from emx_worker.image_task import Generation, ImageFault, ImageTask
from emx_worker.model.architectures import image_patches
from emx_worker.model.loading import load_model

_MAX_PATCHES = 2**15
"""Image patches that are encoded together: those of 128 images for the demo model, of 8 for MedGemma."""

_MAX_BATCH = 128
_DIGITS = 6
"""Decimals of a probability in a results file."""


class PhantomReader:
    """The worker's engine with one model.

    Attributes:
        batch: images that are read together.
    """

    def __init__(
        self,
        model: Path | str,
        adapter: Path | str | None = None,
        device: str = "auto",
        quantisation: str = "auto",
    ) -> None:
        """Load a model, with the options of ``emx_worker.model.loading.load_model``.

        Args:
            model: checkpoint directory or hub id.
            adapter: directory of a PEFT adapter.
            device: auto, cpu or cuda.
            quantisation: of the weights.

        Raises:
            ModelError: if the model can't be loaded.
        """
        logging.disable_progress_bar()
        self._loaded = load_model(model, adapter=adapter, device=device, quantisation=quantisation)
        patches = image_patches(self._loaded.model.config)
        self.batch = max(1, min(_MAX_BATCH, _MAX_PATCHES // patches))
        self._engine = Engine(self._loaded, max_batch=self.batch)
        self._forcing = TeacherForcing(self._loaded)

    def read(self, phantoms: Sequence[RenderedPhantom]) -> list[Prediction]:
        """Return the predictions of at most ``batch`` phantoms."""
        with kept_image_tokens(self._loaded.model) as seen:
            answers = self._engine.generate(
                [image_task_of(str(phantom.seed), Image.fromarray(phantom.image)) for phantom in phantoms]
            )
        # Every phantom has a row: none is refused or cancelled.
        tokens = self._forcing.count(torch.cat(seen), [phantom.truth for phantom in phantoms])
        return [
            prediction_of(str(phantom.seed), phantom.truth, answer).model_copy(
                update={"site": phantom.site, "tokens": counted}
            )
            for phantom, answer, counted in zip(phantoms, answers, tokens, strict=True)
        ]


def image_task_of(name: str, image: Image.Image) -> ImageTask:
    """Return the engine's task for an image that has no file."""
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    facts = ImageFacts(width=image.width, height=image.height, media_type="image/png", sha256=digest)
    return ImageTask(id=name, image=image, facts=facts)


def prediction_of(name: str, truth: str, answer: Generation | ImageFault) -> Prediction:
    """Return an image's prediction; without a report, one that doesn't parse.

    Args:
        name: of the image.
        truth: its true report, as text.
        answer: the engine's.
    """
    text, abstained, probabilities = "", False, list[float]()
    if isinstance(answer, Generation):
        text, abstained = str(answer.parsed), answer.declined is not None
        probabilities = [round(probability, _DIGITS) for probability in answer.probabilities]
    return Prediction(id=name, truth=truth, prediction=text, abstained=abstained, probabilities=probabilities)
