"""What a vision tower is taught before it has words: which finding covers a patch, and how far its box reaches.

The heads are thrown away afterwards. Boxes are regressed from every patch of a finding, as in FCOS (Tian et al.,
ICCV 2019).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emx_training.phantoms import PHANTOM_TERMS

TERMS = len(PHANTOM_TERMS)
_FINER = 2
"""Mask cells along each side of a patch."""

_COVERED = 0.4
"""A patch speaks for a finding if it is covered by so much of what the best covered patch is."""


@dataclass(frozen=True)
class DenseTargets:
    """What is known of each phantom of a batch.

    Attributes:
        masks: (batch, terms, cells, cells) float32, share of each cell that a term covers.
        boxes: (batch, terms, 4) float32, ymin xmin ymax xmax in fractions of the image; 0 where there is none.
    """

    masks: Tensor
    boxes: Tensor


class DenseHeads(nn.Module):
    """Masks and boxes of each term, from the tower's last hidden state, (batch, patches, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.masks = nn.Linear(width, TERMS * _FINER**2)
        self.edges = nn.Linear(width, TERMS * 4)
        nn.init.constant_(self.masks.bias, -4.0)  # most cells hold nothing
        nn.init.constant_(self.edges.bias, 0.1)

    def losses(self, hidden: Tensor, targets: DenseTargets) -> Tensor:
        """(masks, presence, edges): nats for each image, nats, and errors as shares of the box's size."""
        side = round(hidden.shape[1] ** 0.5)
        logits = self._mask_logits(hidden, side)
        area = targets.masks.mean(dim=(2, 3), keepdim=True)
        # A nodule is a few cells of a thousand: without weight it would be the last thing learned.
        weight = 1 + ((0.2 / area.clamp(min=1e-4)).clamp(1, 80) - 1) * targets.masks
        masks = F.binary_cross_entropy_with_logits(logits, targets.masks, weight=weight, reduction="none")
        present = (area.flatten(1) > 0).float()
        presence = F.binary_cross_entropy_with_logits(logits.flatten(2).amax(dim=2), present)
        return torch.stack([masks.mean() * TERMS, presence, self._edge_loss(hidden, side, targets)])

    def _mask_logits(self, hidden: Tensor, side: int) -> Tensor:
        """(batch, terms, cells, cells)."""
        batch = len(hidden)
        cells = self.masks(hidden).view(batch, side, side, TERMS, _FINER, _FINER)
        return cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, TERMS, side * _FINER, side * _FINER)

    def _edge_loss(self, hidden: Tensor, side: int, targets: DenseTargets) -> Tensor:
        coverage = F.avg_pool2d(targets.masks, _FINER).flatten(2)  # (batch, terms, patches)
        best = coverage.amax(dim=2, keepdim=True)
        image, term, patch = torch.nonzero((coverage >= _COVERED * best) & (best > 0), as_tuple=True)
        if not len(image):
            return hidden.new_zeros(())
        reach = self.edges(hidden).view(len(hidden), side * side, TERMS, 4)[image, patch, term]
        y, x = (patch // side + 0.5) / side, (patch % side + 0.5) / side
        box = targets.boxes[image, term]
        wanted = torch.stack([y - box[:, 0], x - box[:, 1], box[:, 2] - y, box[:, 3] - x], dim=1)
        size = torch.stack([box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]], dim=1).repeat(1, 2)
        error = ((reach - wanted).abs() / (size + 0.02)).clamp(max=4.0).mean(dim=1)
        # Each finding counts the same, however many patches speak for it.
        spoken = torch.zeros_like(best).index_put((image, term, torch.zeros_like(term)), error.new_ones(()), True)
        return (error / spoken[image, term, 0]).sum() / (spoken > 0).sum()
