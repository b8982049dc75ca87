"""Declines images that are unlike what a model was trained on.

The distance is that of Mahalanobis, from the training images, of an image's vision features: means and spreads
(after Lee et al., NeurIPS 2018). It says that an image is strange, not what it shows.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from emx_worker.model.checkpoint import ModelError

GUARD = "guard.safetensors"
_LEAST_VARIANCE = 1e-3
"""Share of the mean variance that is added to each, as in directions without any, every image would be strange."""


class Guard:
    """What is known of a model's training images.

    Attributes:
        mean: (features,) float32.
        whitening: (features, features) float32; features less their mean, times it, have variance 1 everywhere.
        threshold: distance from which an image is declined.
    """

    def __init__(self, mean: Tensor, whitening: Tensor, threshold: float) -> None:
        self.mean, self.whitening, self.threshold = mean, whitening, threshold

    @classmethod
    def fit(cls, seen: Tensor, threshold: float = float("inf")) -> "Guard":
        """From ``features`` of training images, (images, features)."""
        values = seen.double()
        mean = values.mean(dim=0)
        covariance = (values - mean).T @ (values - mean) / len(values)
        variance, axes = torch.linalg.eigh(covariance)
        scale = (variance.clamp(min=0) + _LEAST_VARIANCE * variance.mean()).rsqrt()
        return cls(mean.float(), (axes * scale).float(), threshold)

    @classmethod
    def load(cls, folder: Path) -> "Guard | None":
        """The guard beside a checkpoint, if it has one. Raises ModelError."""
        file = folder / GUARD
        if not file.is_file():
            return None
        try:
            tensors = load_file(file)
            return cls(tensors["mean"], tensors["whitening"], float(tensors["threshold"]))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ModelError(f"{file} can't be read ({error}): restore it, or delete it to do without.") from error

    def save(self, folder: Path) -> None:
        tensors = {"mean": self.mean, "whitening": self.whitening, "threshold": torch.tensor(self.threshold)}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / GUARD)
        (folder / GUARD).chmod(0o644)

    def distances(self, hidden: Tensor) -> Tensor:
        """(batch,) of the vision tower's last hidden state, (batch, patches, width)."""
        off = features(hidden) - self.mean.to(hidden.device)
        return (off @ self.whitening.to(hidden.device)).norm(dim=1)


def features(hidden: Tensor) -> Tensor:
    """(batch, patches, width) → (batch, 2 width) float32: mean and spread over the patches."""
    values = hidden.float()
    return torch.cat([values.mean(dim=1), values.std(dim=1)], dim=1)
