"""Image features on disk: in phase 1 nothing before the text layers is trained, so each image is encoded once."""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from emx_worker.model.checkpoint import BaseCheckpoint


def cache_features(model: PeftModel, base: BaseCheckpoint, folder: Path) -> None:
    """Let a model keep what its vision tower and projector make of an image, and read it from then on.

    A file has one image's tokens: 1.3 MB for MedGemma-4B in bf16, so 80 GB for 60,000 images. It is named after
    the pixels and the weights: other images, sizes and bases have files of their own, and several processes can
    share a folder.

    Args:
        model: with phase 1's adapter.
        base: which weights encode.
        folder: where the files are; made if it isn't there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inner: Any = model.get_base_model().model
    inner.get_image_features = _CachedFeatures(inner.get_image_features, base.sha256, folder)


class _CachedFeatures:
    def __init__(self, compute: Any, weights: str, folder: Path) -> None:
        self._compute, self._weights, self._folder = compute, weights, folder

    def __call__(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """Return the features of images, (batch, tokens, width), as the model's own method does."""
        files = [self._file(view) for view in pixel_values]
        found = [_read(file) for file in files]
        missing = [place for place, features in enumerate(found) if features is None]
        if missing:
            computed = self._compute(pixel_values[missing], return_dict=True).pooler_output
            for place, features in zip(missing, computed, strict=True):
                found[place] = features
                _write(features, files[place])
        together = torch.stack([features.to(pixel_values.device) for features in found if features is not None])
        return BaseModelOutputWithPooling(pooler_output=together)

    def _file(self, view: Tensor) -> Path:
        digest = hashlib.sha256(self._weights.encode())
        digest.update(f"{view.dtype} {tuple(view.shape)}".encode())
        digest.update(view.float().cpu().numpy().tobytes())
        return self._folder / f"{digest.hexdigest()}.safetensors"


def _read(file: Path) -> Tensor | None:
    """Return an image's features; None if there are none, or the file is damaged."""
    try:
        return load_file(file)["features"]
    except (OSError, SafetensorError, KeyError):
        return None


def _write(features: Tensor, file: Path) -> None:
    part = file.with_suffix(f".{os.getpid()}.part")
    save_file({"features": features.detach().cpu().contiguous()}, part)
    part.replace(file)
