"""What a vision tower learns before any text: which finding covers a patch, and how far its box reaches.

The heads are discarded after pre-training. Boxes are regressed from every patch of a finding, as in FCOS (Tian et
al., ICCV 2019).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emx_training.phantoms import PHANTOM_TERMS

TERMS = len(PHANTOM_TERMS)
_CELLS_PER_PATCH = 2
"""Mask cells along each side of a patch."""

_MIN_COVERAGE = 0.4
"""A patch predicts a finding's box if its coverage is at least this share of the best covered patch's."""


@dataclass(frozen=True)
class DenseTargets:
    """The dense targets of a batch of phantoms.

    Attributes:
        masks: (batch, terms, cells, cells) float32, the share of each cell that a term covers.
        boxes: (batch, terms, 4) float32, ymin xmin ymax xmax in fractions of the image; 0 for terms that aren't
            shown.
    """

    masks: Tensor
    boxes: Tensor


class DenseHeads(nn.Module):
    """Heads that predict masks and boxes of each term from the tower's last hidden state."""

    def __init__(self, width: int) -> None:
        """Create heads for a tower whose hidden state is ``width`` wide."""
        super().__init__()
        self.masks = nn.Linear(width, TERMS * _CELLS_PER_PATCH**2)
        self.edges = nn.Linear(width, TERMS * 4)
        nn.init.constant_(self.masks.bias, -4.0)  # most cells are empty
        nn.init.constant_(self.edges.bias, 0.1)

    def losses(self, hidden: Tensor, targets: DenseTargets) -> Tensor:
        """Return the losses of masks, presence and edges, (3,).

        Masks are in nats for each image, presence in nats, edges as errors in shares of the box's size.

        Args:
            hidden: the tower's last hidden state, (batch, patches, width).
            targets: what the heads should predict.
        """
        side = round(hidden.shape[1] ** 0.5)
        logits = self._mask_logits(hidden, side)
        area = targets.masks.mean(dim=(2, 3), keepdim=True)
        # A nodule is a few cells of a thousand: without a weight it would be learned last.
        weight = 1 + ((0.2 / area.clamp(min=1e-4)).clamp(1, 80) - 1) * targets.masks
        masks = F.binary_cross_entropy_with_logits(logits, targets.masks, weight=weight, reduction="none")
        present = (area.flatten(1) > 0).float()
        presence = F.binary_cross_entropy_with_logits(logits.flatten(2).amax(dim=2), present)
        return torch.stack([masks.mean() * TERMS, presence, self._edge_loss(hidden, side, targets)])

    def _mask_logits(self, hidden: Tensor, side: int) -> Tensor:
        """Return the logits of the masks, (batch, terms, cells, cells)."""
        batch = len(hidden)
        cells: Tensor = self.masks(hidden).view(batch, side, side, TERMS, _CELLS_PER_PATCH, _CELLS_PER_PATCH)
        return cells.permute(0, 3, 1, 4, 2, 5).reshape(
            batch, TERMS, side * _CELLS_PER_PATCH, side * _CELLS_PER_PATCH
        )

    def _edge_loss(self, hidden: Tensor, side: int, targets: DenseTargets) -> Tensor:
        """Return the mean error of the boxes' edges, as a share of the box's size."""
        coverage = F.avg_pool2d(targets.masks, _CELLS_PER_PATCH).flatten(2)  # (batch, terms, patches)
        best = coverage.amax(dim=2, keepdim=True)
        image, term, patch = torch.nonzero((coverage >= _MIN_COVERAGE * best) & (best > 0), as_tuple=True)
        if not len(image):
            return hidden.new_zeros(())
        reach = self.edges(hidden).view(len(hidden), side * side, TERMS, 4)[image, patch, term]
        y, x = (patch // side + 0.5) / side, (patch % side + 0.5) / side
        box = targets.boxes[image, term]
        wanted = torch.stack([y - box[:, 0], x - box[:, 1], box[:, 2] - y, box[:, 3] - x], dim=1)
        size = torch.stack([box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]], dim=1).repeat(1, 2)
        error: Tensor = ((reach - wanted).abs() / (size + 0.02)).clamp(max=4.0).mean(dim=1)
        # Each finding counts the same, however many patches predict it.
        voting: Tensor = torch.zeros_like(best).index_put(
            (image, term, torch.zeros_like(term)), error.new_ones(()), True
        )
        return (error / voting[image, term, 0]).sum() / (voting > 0).sum()
