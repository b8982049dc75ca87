"""Muon: momentum, made orthogonal, for the matrices of hidden layers (Jordan et al. 2024).

torch has Muon too, but computes in bfloat16 on every device; on a CPU without bf16 units that is a hundred times
slower than this implementation.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_STEPS = 5
"""Newton-Schulz iterations."""

_A, _B, _C = 3.4445, -4.7750, 2.0315
"""Coefficients of the quintic iteration, from the same source."""

_LIKE_ADAM = 0.2
"""Root mean square of an update, so that Adam's learning rates fit (Liu et al. 2025, arXiv 2502.16982)."""


class Muon(torch.optim.Optimizer):
    """An optimizer for matrices. Embeddings, heads and vectors belong to another optimizer."""

    def __init__(
        self, params: Iterable[Any], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        """Prepare to optimize.

        Args:
            params: matrices, or groups of them.
            lr: learning rate, in Adam's scale.
            momentum: of Nesterov's kind.
            weight_decay: decoupled; it is multiplied by the learning rate.
        """
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: defaultdict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                buffer = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                buffer.lerp_(weight.grad, 1 - group["momentum"])
                by_shape[tuple(weight.shape)].append((weight, weight.grad.lerp(buffer, group["momentum"])))
            for shape, pairs in by_shape.items():
                updates = orthogonal(torch.stack([update for _, update in pairs]))
                scale = group["lr"] * _LIKE_ADAM * max(shape) ** 0.5
                for (weight, _), update in zip(pairs, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return approximately the nearest matrices whose singular values are all 1.

    Args:
        matrices: (count, rows, columns) float32.

    Returns:
        The same shape; singular values lie between about 0.6 and 1.3.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.transpose(1, 2)
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x
