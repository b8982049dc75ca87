"""The embeddings of the 1,024 location tokens: how they begin, and how they are trained without all others."""

import math
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from torch import Tensor, nn
from torch.nn import functional as F

from emx_shared.grammar import LOC_BINS

_WAVES = 32
"""Frequencies that a bin's place is written in, from half a wave over all bins to one in four bins."""


def initial_rows(embedding: Tensor, seed: int = 0) -> Tensor:
    """Return embeddings for location tokens that know their order: the nearer two bins, the more alike they are.

    Each is the mean of the embedding and a random projection of the bin's sines and cosines, as long as the
    embedding's rows are from their mean.

    Args:
        embedding: (tokens, width), trained.
        seed: of the projection.

    Returns:
        (1024, width) in the embedding's dtype, on its device.
    """
    sample = embedding[
        torch.randperm(len(embedding), generator=torch.Generator().manual_seed(seed))[:8192]
    ].float()
    mean = sample.mean(dim=0)
    length = (sample - mean).norm(dim=1).median()
    frequencies = torch.logspace(math.log10(0.5 / LOC_BINS), math.log10(0.25), _WAVES, dtype=torch.float64)
    angles = 2 * math.pi * torch.arange(LOC_BINS, dtype=torch.float64)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1).float()
    directions = torch.randn(2 * _WAVES, embedding.shape[1], generator=torch.Generator().manual_seed(seed))
    rows = (waves @ directions).to(mean.device)
    found: Tensor = rows / rows.norm(dim=1, keepdim=True) * length + mean
    return found.to(embedding.dtype)


def train_rows_alone(model: PeftModel) -> None:
    """Compute with the trained rows beside the frozen embedding.

    PEFT writes them into a copy of the whole embedding in each forward pass, once for the embedding and once for
    the head, and so has two gradients of its size. Here the rows are looked up and multiplied apart, with the same
    results.
    """
    for module in model.modules():
        if isinstance(module, TrainableTokensLayer):
            module.forward_adapters = MethodType(_beside, module)


def _beside(layer: Any, x: Tensor, active_adapters: list[str]) -> Tensor:
    (name,) = active_adapters
    rows, base = layer.trainable_tokens_delta[name], layer.base_layer
    first, end = layer.token_indices[name][0], layer.token_indices[name][-1] + 1
    if isinstance(base, nn.Embedding):
        known: Tensor = base(x)
        at = x - first
        own = F.embedding(at.clamp(0, len(rows) - 1), rows).to(known.dtype)
        if (scale := layer._get_embed_scale()) is not None:
            own = own * scale.to(own.dtype)
        return torch.where(((at >= 0) & (at < len(rows)))[..., None], own, known)
    weight = base.weight
    parts = (weight[:first], rows.to(weight.dtype), weight[end:])
    return torch.cat([F.linear(x, part) for part in parts], dim=-1)
