"""Turns images into the features that the decoder reads."""

import logging

import torch
from torch import Tensor, nn

from emx_worker.engine.progress import EngineProgress
from emx_worker.engine.sequence import ReportSequence
from emx_worker.image_task import ImageFault
from emx_worker.model.loading import LoadedModel
from emx_worker.report_builder import decline_reason

log = logging.getLogger("emx.engine")


class ImageEncoder:
    """The image processor, the vision tower and the out-of-distribution guard."""

    def __init__(self, loaded: LoadedModel, progress: EngineProgress) -> None:
        self._model, self._device, self._guard = loaded.model.model, loaded.device, loaded.guard
        self._processor, self._box_decoding, self._progress = loaded.processor, loaded.box_decoding, progress
        stacks = [stack for stack in self._model.vision_tower.modules() if isinstance(stack, nn.ModuleList)]
        self._layers = [layer for stack in stacks for layer in stack]

    @torch.inference_mode()
    def encode(self, batch: list[ReportSequence]) -> None:
        """Set the image features of each sequence, or the reason why it ends here."""
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
        self._decline_unfamiliar(batch, seen.last_hidden_state)

    def _decline_unfamiliar(self, batch: list[ReportSequence], hidden: Tensor) -> None:
        """End the sequences whose images the guard declines. ``hidden`` is (batch, patches, width)."""
        if self._guard is None:
            return
        for sequence, distance in zip(batch, self._guard.distances(hidden).tolist(), strict=True):
            if distance > self._guard.threshold:
                sequence.declined = decline_reason(distance, self._guard.threshold)
                sequence.mark()

    def _pixels(self, sequence: ReportSequence) -> Tensor | None:
        """Convert the image for the vision tower, fp32 (1, 3, side, side). None if it can't be converted."""
        try:
            image = self._box_decoding.view(sequence.task.image)
            view: Tensor = self._processor.image_processor(images=image, return_tensors="pt")["pixel_values"]
            return view
        except Exception as error:  # whatever Pillow and the processor may raise
            log.warning("the image processor refused the image of %s: %s", sequence.task.id, type(error).__name__)
            sequence.fault = ImageFault("image", "The model's image processor can't take this image.")
            return None
