"""The keys and values of the running sequences, and how one forward pass uses them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ForwardLayout:
    """Where the tokens of one forward pass belong.

    Tokens are laid out as (lines, columns). In a prefill a line is a sequence; in decoding it is one token, so
    that sequences with one new token and with several (jump-forward) go through the layers without padding.

    Attributes:
        rows: int64 (lines, 1): the slot of each line.
        places: int64 (1 or lines, columns): where in its slot each token's key and value go.
        full: bool (1 or sequences, 1, queries, reach): what each query sees in layers with full attention; queries
            are folded as ``attention`` folds them.
        sliding: the same in layers with a sliding window.
        sequences: how many slots are read, from the first on; None in a prefill, which sees only itself and the
            prefix.
        spread: int64 (sequences, width): the lines of each sequence's tokens, the last one repeated if it has
            fewer; None where every line is one sequence.
    """

    rows: Tensor
    places: Tensor
    full: Tensor
    sliding: Tensor
    sequences: int | None = None
    spread: Tensor | None = None

    @property
    def reach(self) -> int:
        """Return how many places of a slot the queries may see."""
        return self.full.shape[-1]


class SlotCache:
    """One slot for each running sequence, used by the decoder in place of transformers' cache.

    Running sequences always hold the first slots, so that reading them copies nothing.

    Attributes:
        layout: of the forward pass under way; None between two of them.
    """

    def __init__(self, config: Any, count: int, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        """Allocate the slots.

        Args:
            config: the text model's.
            count: number of slots.
            capacity: tokens of the longest prompt and report together.
            dtype: of keys and values.
            device: where they are stored.
        """
        heads, width = config.num_key_value_heads, config.head_dim
        self._layers = torch.zeros(
            config.num_hidden_layers, 2, count, capacity, heads, width, dtype=dtype, device=device
        )
        self._prefix = 0
        self.layout: ForwardLayout | None = None

    @staticmethod
    def bytes_each(config: Any, capacity: int, dtype: torch.dtype) -> int:
        """Return the memory of one slot, in bytes."""
        width = config.num_key_value_heads * config.head_dim
        return int(config.num_hidden_layers * 2 * capacity * width * dtype.itemsize)

    @property
    def count(self) -> int:
        """Return the number of slots."""
        return self._layers.shape[2]

    @property
    def empty(self) -> bool:
        """Tell whether nothing of any image is left in the slots."""
        return not self._layers[:, :, :, self._prefix :].any()

    def keep_prefix(self, length: int) -> None:
        """Copy the first tokens of slot 0 to all slots, to keep: they are the same in every sequence."""
        self._prefix = length
        self._layers[:, :, :, :length] = self._layers[:, :, :1, :length].clone()

    def move(self, source: int, target: int) -> None:
        """Copy a slot's keys and values to another slot."""
        self._layers[:, :, target, self._prefix :] = self._layers[:, :, source, self._prefix :]

    def clear(self, slot: int) -> None:
        """Erase a slot, so that nothing of an image stays in memory after its report."""
        self._layers[:, :, slot, self._prefix :] = 0

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values.

        Args:
            keys: (lines, heads, columns, width).
            values: of the same shape.
            layer: its number.

        Returns:
            The keys and values that the layout's queries may see, (sequences, heads, reach, width).
        """
        layout = self.layout
        assert layout is not None, "only within DecoderRunner's forward pass"
        stored = self._layers[layer]
        new = torch.stack([keys, values]).transpose(2, 3)
        stored[:, layout.rows, layout.places] = new
        if layout.sequences is None:
            prefix = stored[:, :1, : self._prefix].expand(-1, len(keys), -1, -1, -1)
            seen = torch.cat([prefix, new], dim=2) if self._prefix else new
        else:
            seen = stored[:, : layout.sequences, : layout.reach]
        key, value = seen.transpose(2, 3)
        return key, value


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: object,
    scaling: float,
    layout: ForwardLayout,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Compute attention as transformers requests it, within a ``ForwardLayout``.

    The query heads that share a key head are folded into its queries, so that keys aren't repeated.

    Args:
        module: the attention layer; unused.
        query: (lines, heads, columns, width).
        key: (sequences, key heads, reach, width), from ``SlotCache.update``.
        value: of the same shape.
        attention_mask: unused, since the layout has the masks.
        scaling: factor of the scores.
        layout: of this forward pass.
        softcap: bound of the scores; None without (Gemma 2 has one).
        sliding_window: None in layers with full attention.

    Returns:
        The output, (lines, columns, heads, width), and no attention weights.
    """
    if layout.spread is not None:
        query = query[:, :, 0][layout.spread].transpose(1, 2)
    sequences, heads, queries, width = query.shape
    folded = query.reshape(sequences, key.shape[1], -1, width)
    mask = layout.full if sliding_window is None else layout.sliding
    if softcap is None:
        seen = F.scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    else:  # Gemma 2
        scores = torch.tanh(folded @ key.transpose(2, 3) * (scaling / softcap)) * softcap
        seen = (
            scores.masked_fill(~mask, float("-inf")).softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value
        )
    out = seen.reshape(sequences, heads, queries, width).transpose(1, 2)
    if layout.spread is None:
        return out, None
    lines = torch.empty(len(layout.rows), 1, heads, width, dtype=out.dtype, device=out.device)
    lines[layout.spread, 0] = out
    return lines, None


def decode_layout(
    cached: Sequence[int], new: Sequence[int], groups: int, window: int | None, device: torch.device
) -> ForwardLayout:
    """Lay out a decoding step. It is thought out on the CPU, so that the device isn't waited for.

    Args:
        cached: tokens that each sequence has in its slot.
        new: tokens that each sequence gets in this step, at least one.
        groups: query heads that share a key head.
        window: tokens that sliding layers see, the query's own included; None if there are no such layers.
        device: where the layout is used.
    """
    sequences, width, reach = len(new), max(new), max(map(sum, zip(cached, new, strict=True)))
    counts = np.array(new)
    offsets = np.minimum(np.arange(width), counts[:, None] - 1)
    at = np.array(cached)[:, None] + offsets  # (sequences, width)
    full = np.arange(reach) <= at[..., None]
    sliding = full if window is None else full & (np.arange(reach) > at[..., None] - window)
    spread = (np.cumsum(counts) - counts)[:, None] + offsets
    places = at[np.arange(width) < counts[:, None]]
    return ForwardLayout(
        rows=put(np.repeat(np.arange(sequences), counts)[:, None], device),
        places=put(places[:, None], device),
        full=fold(put(full, device), groups),
        sliding=fold(put(sliding, device), groups),
        sequences=sequences,
        spread=None if width == 1 else put(spread, device),
    )


def fold(mask: Tensor, groups: int) -> Tensor:
    """Fold a mask's queries as ``attention`` does.

    Args:
        mask: (sequences, queries, reach).
        groups: query heads that share a key head.

    Returns:
        The mask for all query heads of a key head, (sequences, 1, groups × queries, reach).
    """
    sequences, queries, reach = mask.shape
    return mask[:, None, None].expand(-1, -1, groups, -1, -1).reshape(sequences, 1, groups * queries, reach)


def put(numbers: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array as a tensor on a device, without waiting for what the device has to do before."""
    return torch.from_numpy(numbers).to(device, non_blocking=True)
