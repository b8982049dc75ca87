"""Losses that pre-training and fine-tuning share."""

import torch
from torch import Tensor
from torch.nn import functional as F

from emx_shared.grammar import LOC_BINS

IGNORED = -100
"""A label that torch's cross-entropy skips."""


def soft_cross_entropy(logits: Tensor, bins: Tensor, softness: float, first_location: int) -> Tensor:
    """Return the cross-entropy to a Gaussian about each true bin, less the Gaussian's own entropy.

    A near miss costs less than a far one; 0 is perfect.

    Args:
        logits: (locations, vocabulary), over the whole vocabulary.
        bins: (locations,) int64, 0 to 1023.
        softness: the Gaussian's standard deviation, in bins.
        first_location: id of ``<loc0000>``.

    Returns:
        The mean over locations, in nats.
    """
    offset = torch.arange(LOC_BINS, device=bins.device)[None, :] - bins[:, None]
    target = F.softmax(-0.5 * (offset / softness) ** 2, dim=1)
    entropy = -(target * target.clamp_min(1e-12).log()).sum(dim=1)
    guessed = F.log_softmax(logits, dim=1)[:, first_location : first_location + LOC_BINS]
    return (-(target * guessed).sum(dim=1) - entropy).mean()
