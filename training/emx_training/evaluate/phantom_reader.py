"""A model that reads phantoms as the worker reads studies, and is then fed their true reports."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from transformers.utils import logging

from emx_shared.contracts.report import ImageFacts
from emx_training.evaluate.predictions import ForcedTokens, Prediction
from emx_training.evaluate.splits import Drawing
from emx_training.evaluate.teacher_forcing import TeacherForcing, kept_image_tokens
from emx_worker.engine.engine import Engine
from emx_worker.image_task import Generation, ImageFault, ImageTask
from emx_worker.model.architectures import image_patches
from emx_worker.model.loading import load_model

_PATCHES = 2**15
"""Image patches that are encoded together: those of 128 studies for the demo model, of 8 for MedGemma."""

_LARGEST_BATCH = 128
_DIGITS = 6
"""Decimals of a probability in a results file."""


class Reader:
    """The engine with one model; options are those of ``emx_worker.model.loading.load_model``.

    Attributes:
        batch: studies that are read together.
    """

    def __init__(
        self,
        model: Path | str,
        adapter: Path | str | None = None,
        device: str = "auto",
        quantisation: str = "auto",
    ) -> None:
        """Raises emx_worker.model.loading.ModelError."""
        logging.disable_progress_bar()
        self._loaded = load_model(model, adapter=adapter, device=device, quantisation=quantisation)
        patches = image_patches(self._loaded.model.config)
        self.batch = max(1, min(_LARGEST_BATCH, _PATCHES // patches))
        self._engine = Engine(self._loaded, max_batch=self.batch)
        self._forcing = TeacherForcing(self._loaded)

    def read(self, drawings: Sequence[Drawing]) -> list[Prediction]:
        """The predictions of at most ``batch`` phantoms."""
        with kept_image_tokens(self._loaded.model) as seen:
            answers = self._engine.generate(
                [study_of(str(drawing.seed), Image.fromarray(drawing.image)) for drawing in drawings]
            )
        # A row for each: no phantom's image is refused, and none is cancelled.
        tokens = self._forcing.count(torch.cat(seen), [drawing.truth for drawing in drawings])
        return list(map(_prediction, drawings, answers, tokens))


def study_of(name: str, image: Image.Image) -> ImageTask:
    """A picture that came from no file, as the engine takes it."""
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    facts = ImageFacts(width=image.width, height=image.height, media_type="image/png", sha256=digest)
    return ImageTask(id=name, image=image, facts=facts)


def _prediction(drawing: Drawing, answer: Generation | ImageFault, tokens: ForcedTokens) -> Prediction:
    """A study that got no report has a prediction that doesn't parse."""
    text, abstained, probabilities = "", False, list[float]()
    if isinstance(answer, Generation):
        text, abstained = str(answer.parsed), answer.declined is not None
        probabilities = [round(probability, _DIGITS) for probability in answer.probabilities]
    return Prediction(
        id=str(drawing.seed),
        truth=drawing.truth,
        prediction=text,
        abstained=abstained,
        probabilities=probabilities,
        site=drawing.site,
        tokens=tokens,
    )
