"""Rounds weights to 4-bit codes, with the scale and zero of each group that lose the least.

From a group's smallest to its largest weight is a wide range for 16 codes: a narrower one, which clips the
outermost weights, often loses less over all of them. Some are tried, and then the line through the weights over
their codes, as llama.cpp does (``make_qkx2_quants`` in ggml-quants.c).
"""

import torch
from torch import Tensor

GROUP = 32
"""Input weights that share a scale and a zero: the finest size that torch's kernels support."""

_NARROWER = (0.92, 0.84)
"""Shares of a group's smallest, then of its largest weight at which codes may end instead."""

_BLOCK = 2**17
"""Weights that are quantised at a time: so few that all tries find them in the processor's cache."""

_TINY = 1e-8
"""Least scale, and least variance of a group's codes: a group may be constant."""


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise weights.

    The codes are computed for scale and zero after these are rounded to bf16, so that their rounding is not added
    to the codes'.

    Args:
        weight: any floating dtype, (out_features, in_features), whose width is a multiple of ``GROUP``.

    Returns:
        Codes (int32, 0 to 15, shape of ``weight``), and scales and zeros, bf16 (in_features / GROUP, out_features,
        2). A weight is about (code - 8) * scale + zero.
    """
    outputs, inputs = weight.shape
    codes = torch.empty(outputs, inputs, dtype=torch.int32)
    scales_and_zeros = torch.empty(inputs // GROUP, outputs, 2, dtype=torch.bfloat16)
    rows = max(_BLOCK // inputs, 1)
    for start in range(0, outputs, rows):
        block = slice(start, start + rows)
        # Groups lie side by side, so that what is computed for each of them runs along memory.
        grouped = weight[block].float().reshape(-1, GROUP).t().contiguous()
        scale, zero = _fit(grouped)
        codes[block] = _codes(grouped, scale, zero).t().reshape(-1, inputs)
        pairs = torch.stack([scale, zero], dim=-1)
        scales_and_zeros[:, block] = pairs.view(-1, inputs // GROUP, 2).transpose(0, 1)
    return codes, scales_and_zeros


def _fit(grouped: Tensor) -> tuple[Tensor, Tensor]:
    """Find each group's scale and zero with the least square error among those tried.

    Args:
        grouped: fp32, (GROUP, groups).

    Returns:
        Scale and zero, each fp32 with a value of bf16, (groups,).
    """
    low, high = grouped.aminmax(dim=0)
    scale, zero = _of_range(low, high)
    best = _Best(grouped, scale, zero)
    smallest = low
    for share in _NARROWER:
        low = torch.where(best.offer(*_of_range(smallest * share, high)), smallest * share, low)
    for share in _NARROWER:
        best.offer(*_of_range(low, high * share))
    best.offer(*_line_through_codes(grouped, best.scale, best.zero))
    return best.scale, best.zero


class _Best:
    """The scale and zero with the least error so far, of each group."""

    def __init__(self, grouped: Tensor, scale: Tensor, zero: Tensor) -> None:
        self._grouped = grouped
        self.scale, self.zero = scale, zero
        self._error = _error(grouped, scale, zero)

    def offer(self, scale: Tensor, zero: Tensor) -> Tensor:
        """Take scale and zero for the groups that they suit better. Return which these are, (groups,)."""
        error = _error(self._grouped, scale, zero)
        better = error < self._error
        self._error = torch.where(better, error, self._error)
        self.scale = torch.where(better, scale, self.scale)
        self.zero = torch.where(better, zero, self.zero)
        return better


def _of_range(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale and zero with which code 0 is ``low`` and code 15 is ``high``."""
    scale = _bf16(((high - low) / 15).clamp_(min=_TINY))
    return scale, _bf16(low + 8 * scale)


def _line_through_codes(grouped: Tensor, scale: Tensor, zero: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a line through weights over their codes (least squares): its slope is the scale."""
    codes = _codes(grouped, scale, zero).sub_(8)
    code, weight = codes.mean(dim=0), grouped.mean(dim=0)
    covariance = (codes * grouped).mean(dim=0) - code * weight
    variance = codes.square_().mean(dim=0) - code.square()
    slope = _bf16((covariance / variance.clamp_(min=_TINY)).clamp_(min=_TINY))
    return slope, _bf16(weight - slope * code)


def _error(grouped: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Return the sum of square errors of each group's weights."""
    exact = _unrounded_codes(grouped, scale, zero)
    return exact.sub_(exact.round().clamp_(0, 15)).square_().sum(dim=0).mul_(scale.square())


def _codes(grouped: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    return _unrounded_codes(grouped, scale, zero).round_().clamp_(0, 15)


def _unrounded_codes(grouped: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Return the codes (0 to 15) before they are rounded and clipped."""
    per_scale = 1 / scale
    return torch.addcmul(8 - zero * per_scale, grouped, per_scale)


def _bf16(values: Tensor) -> Tensor:
    return values.to(torch.bfloat16).float()
