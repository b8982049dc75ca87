"""Declines images that are unlike those that a model was trained on (out of distribution).

The distance of an image is the Mahalanobis distance of its vision features, means and spreads over the patches,
from those of the training images (after Lee et al., NeurIPS 2018). It says that an image is unfamiliar, not what
it shows.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from emx_worker.model.checkpoint import ModelError

GUARD_FILE = "guard.safetensors"
_LEAST_VARIANCE = 1e-3
"""Share of the mean variance that is added to each: in directions without variance, every image would be
unfamiliar."""


class OodGuard:
    """Measures how far an image is from a model's training images.

    Attributes:
        mean: (features,) float32.
        whitening: (features, features) float32; centred training features times it have variance 1 everywhere.
        threshold: the largest distance that is read.
    """

    def __init__(self, mean: Tensor, whitening: Tensor, threshold: float) -> None:
        self.mean, self.whitening, self.threshold = mean, whitening, threshold

    @classmethod
    def fit(cls, seen: Tensor, threshold: float = float("inf")) -> "OodGuard":
        """Fit a guard to the ``features`` of training images, (images, features)."""
        values = seen.double()
        mean = values.mean(dim=0)
        covariance = (values - mean).T @ (values - mean) / len(values)
        variance, axes = torch.linalg.eigh(covariance)
        scale = (variance.clamp(min=0) + _LEAST_VARIANCE * variance.mean()).rsqrt()
        return cls(mean.float(), (axes * scale).float(), threshold)

    @classmethod
    def load(cls, folder: Path) -> "OodGuard | None":
        """Load a checkpoint's guard; None if it has none. Raises ModelError if it is damaged."""
        file = folder / GUARD_FILE
        if not file.is_file():
            return None
        try:
            tensors = load_file(file)
            return cls(tensors["mean"], tensors["whitening"], float(tensors["threshold"]))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ModelError(f"{file} can't be read ({error}): restore it, or delete it to do without.") from error

    def save(self, folder: Path) -> None:
        """Save the guard into a checkpoint's directory."""
        tensors = {"mean": self.mean, "whitening": self.whitening, "threshold": torch.tensor(self.threshold)}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / GUARD_FILE)
        (folder / GUARD_FILE).chmod(0o644)

    def distances(self, hidden: Tensor) -> Tensor:
        """Return each image's distance, (batch,).

        Args:
            hidden: the vision tower's last hidden state, (batch, patches, width).
        """
        centred = features(hidden) - self.mean.to(hidden.device)
        distances: Tensor = (centred @ self.whitening.to(hidden.device)).norm(dim=1)
        return distances


def features(hidden: Tensor) -> Tensor:
    """Return mean and spread over the patches: (batch, patches, width) → (batch, 2 width) float32."""
    values = hidden.float()
    return torch.cat([values.mean(dim=1), values.std(dim=1)], dim=1)
