"""Teaches a guard what a model's training images look like: phantoms, as other machines might expose them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn

from emx_training.pretrain.demo_architecture import build_processor
from emx_training.pretrain.phantom_batches import Lessons
from emx_training.pretrain.phantom_cache import CachedPhantoms
from emx_worker.model.checkpoint import read_config
from emx_worker.model.ood_guard import OodGuard, features
from emx_worker.model.weights import read_weights

_BATCH = 50
_PERCENTILE = 99.5
_MARGIN = 1.05
"""A site that neither fit nor threshold has seen lies a little farther off than those that they have."""


def fit_guard(checkpoint: Path, seen: CachedPhantoms, watched: Iterable[CachedPhantoms]) -> OodGuard:
    """A guard of the checkpoint's vision tower.

    Parameters:
        seen: what it learns from, each phantom as it is and under another exposure.
        watched: what the threshold is set by, for each site: nearly all of them must be read.
    """
    config = read_config(checkpoint)
    tower = read_weights(checkpoint, config, dtype=torch.float32).model.vision_tower
    lessons = Lessons(seen, build_processor(config))
    guard = OodGuard.fit(torch.cat([_features(tower, lessons, None), _features(tower, lessons, 0)]))
    limits = []
    for phantoms in watched:
        off = (_features(tower, Lessons(phantoms, build_processor(config)), None) - guard.mean) @ guard.whitening
        limits.append(float(np.percentile(off.norm(dim=1).numpy(), _PERCENTILE)))
    guard.threshold = _MARGIN * max(limits)
    return guard


@torch.inference_mode()
def _features(tower: nn.Module, lessons: Lessons, seed: int | None) -> Tensor:
    """(phantoms, features); ``seed`` varies their exposure."""
    found = []
    starts = range(0, len(lessons.phantoms), _BATCH)
    for at in track(starts, description="Looking at phantoms", transient=True):
        indices: NDArray[np.int64] = np.arange(at, min(at + _BATCH, len(lessons.phantoms)))
        random = None if seed is None else np.random.default_rng([seed, at])
        pixels = lessons.batch(indices, random).pixel_values
        found.append(features(tower(pixel_values=pixels).last_hidden_state))
    return torch.cat(found)
