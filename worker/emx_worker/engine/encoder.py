"""Images on their way to the decoder."""

import logging

import torch
from torch import Tensor, nn

from emx_worker.engine.progress import Progress
from emx_worker.engine.sequence import Sequence
from emx_worker.model.loading import LoadedModel
from emx_worker.report_builder import StudyFault, declined

log = logging.getLogger("emx.engine")


class Encoder:
    """Image processor, vision tower and guard."""

    def __init__(self, loaded: LoadedModel, progress: Progress) -> None:
        self._model, self._device, self._guard = loaded.model.model, loaded.device, loaded.guard
        self._processor, self._dialect, self._progress = loaded.processor, loaded.dialect, progress
        stacks = [stack for stack in self._model.vision_tower.modules() if isinstance(stack, nn.ModuleList)]
        self._layers = [layer for stack in stacks for layer in stack]

    @torch.inference_mode()
    def encode(self, batch: list[Sequence]) -> None:
        """Fill in the features of each, or why it ends here."""
        for sequence in batch:
            sequence.mark()
        pixels = [self._pixels(sequence) for sequence in batch]
        batch = [sequence for sequence in batch if not sequence.ended]
        if not batch:
            return
        views = torch.cat([view for view in pixels if view is not None]).to(
            self._device, self._model.vision_tower.dtype
        )
        with self._progress.layers(self._layers):
            seen = self._model.get_image_features(views, return_dict=True)
        for sequence, features in zip(batch, seen.pooler_output, strict=True):
            sequence.features = features
        if self._guard is None:
            return
        for sequence, distance in zip(batch, self._guard.distances(seen.last_hidden_state).tolist(), strict=True):
            if distance > self._guard.threshold:
                sequence.declined = declined(distance, self._guard.threshold)
                sequence.mark()

    def _pixels(self, sequence: Sequence) -> Tensor | None:
        """The model's view of the study's image, fp32 (1, 3, side, side)."""
        try:
            image = self._dialect.view(sequence.study.image)
            view: Tensor = self._processor.image_processor(images=image, return_tensors="pt")["pixel_values"]
            return view
        except Exception as error:  # whatever Pillow and the processor may raise
            log.warning("image of %s refused by the processor: %s", sequence.study.id, type(error).__name__)
            sequence.fault = StudyFault("image", "The model's image processor can't take this image.")
            return None
