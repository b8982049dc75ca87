"""Fit a guard to a model's training images: phantoms, as other machines might expose them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn

from emx_training.pretrain.demo_architecture import build_processor
from emx_training.pretrain.phantom_batches import PhantomBatches
from emx_training.pretrain.phantom_cache import CachedPhantoms
from emx_worker.model.checkpoint import read_config
from emx_worker.model.ood_guard import OodGuard, features
from emx_worker.model.weights import read_weights

_BATCH = 50
_PERCENTILE = 99.5
"""Share of a site's phantoms that must be read, in per cent."""

_MARGIN = 1.05
"""Factor of the threshold: a site that neither fit nor threshold has seen is a little farther off."""


def fit_guard(checkpoint: Path, seen: CachedPhantoms, watched: Iterable[CachedPhantoms]) -> OodGuard:
    """Fit a guard on the features of a checkpoint's vision tower.

    Args:
        checkpoint: directory of the base.
        seen: the phantoms to fit, each unchanged and under another exposure.
        watched: the phantoms of each site by which the threshold is set: nearly all of them must be read.
    """
    config = read_config(checkpoint)
    processor = build_processor(config)
    tower = read_weights(checkpoint, config, dtype=torch.float32).model.vision_tower
    seen_batches = PhantomBatches(seen, processor)
    guard = OodGuard.fit(torch.cat([_features(tower, seen_batches, None), _features(tower, seen_batches, 0)]))
    limits = []
    for phantoms in watched:
        offsets = _features(tower, PhantomBatches(phantoms, processor), None) - guard.mean
        distances = (offsets @ guard.whitening).norm(dim=1)
        limits.append(float(np.percentile(distances.numpy(), _PERCENTILE)))
    guard.threshold = _MARGIN * max(limits)
    return guard


@torch.inference_mode()
def _features(tower: nn.Module, batches: PhantomBatches, seed: int | None) -> Tensor:
    """Return the features, (phantoms, features) float32. A seed varies the exposure; None leaves it unchanged."""
    found = []
    starts = range(0, len(batches.phantoms), _BATCH)
    for at in track(starts, description="Encoding phantoms", transient=True):
        indices: NDArray[np.int64] = np.arange(at, min(at + _BATCH, len(batches.phantoms)))
        random = None if seed is None else np.random.default_rng([seed, at])
        pixels = batches.batch(indices, random).pixel_values
        found.append(features(tower(pixel_values=pixels).last_hidden_state))
    return torch.cat(found)
