"""The keys and values of the studies under way, and one forward's way through them."""

from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Step:
    """Where the tokens of one forward belong.

    Tokens are rows of a tensor (lines, columns): in a prefill a line is a study, in decoding it is one token, so
    that studies with a token and studies with several (jump-forward) go through the layers without padding.

    Attributes:
        rows: int64 (lines, 1): the slot of each line.
        places: int64 (1 or lines, columns): where in the slot each token's key and value go.
        full, sliding: bool (1 or studies, 1, queries, reach): what each query sees, in layers that see all of the
            past, and in those with a window; queries are folded as ``attention`` folds them.
        studies: slots that are read, from the first on; None in a prefill, which sees itself and the prefix only.
        spread: int64 (studies, width): the line of each study's tokens, the last one repeated where it has fewer;
            None where line and study are the same.
    """

    rows: Tensor
    places: Tensor
    full: Tensor
    sliding: Tensor
    studies: int | None = None
    spread: Tensor | None = None

    @property
    def reach(self) -> int:
        return self.full.shape[-1]


class Slots:
    """One slot for each study that runs; those that run hold the first ones, so that reading copies nothing.

    It is given to the decoder in the place of transformers' cache.
    """

    def __init__(self, config: Any, count: int, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        """
        Args:
            config: the text model's.
            capacity: tokens of the longest prompt and report.
        """
        heads, width = config.num_key_value_heads, config.head_dim
        self._layers = torch.zeros(
            config.num_hidden_layers, 2, count, capacity, heads, width, dtype=dtype, device=device
        )
        self._prefix = 0
        self.step: Step | None = None

    @staticmethod
    def bytes_each(config: Any, capacity: int, dtype: torch.dtype) -> int:
        """Memory of one slot."""
        width = config.num_key_value_heads * config.head_dim
        return int(config.num_hidden_layers * 2 * capacity * width * dtype.itemsize)

    @property
    def count(self) -> int:
        return self._layers.shape[2]

    @property
    def empty(self) -> bool:
        """Whether nothing of any study is left."""
        return not self._layers[:, :, :, self._prefix :].any()

    def keep_prefix(self, length: int) -> None:
        """Of what slot 0 holds, the first tokens are the same in every study: from now on, all slots hold them."""
        self._prefix = length
        self._layers[:, :, :, :length] = self._layers[:, :, :1, :length].clone()

    def move(self, source: int, target: int) -> None:
        self._layers[:, :, target, self._prefix :] = self._layers[:, :, source, self._prefix :]

    def clear(self, slot: int) -> None:
        """Nothing of a study stays in memory after its report."""
        self._layers[:, :, slot, self._prefix :] = 0

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Keep a layer's new keys and values, (lines, heads, columns, width); what the step's queries see."""
        step = self.step
        assert step is not None, "only within Runner's forward"
        held = self._layers[layer]
        new = torch.stack([keys, values]).transpose(2, 3)
        held[:, step.rows, step.places] = new
        if step.studies is None:
            prefix = held[:, :1, : self._prefix].expand(-1, len(keys), -1, -1, -1)
            seen = torch.cat([prefix, new], dim=2) if self._prefix else new
        else:
            seen = held[:, : step.studies, : step.reach]
        key, value = seen.transpose(2, 3)
        return key, value


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: object,
    scaling: float,
    step: Step,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention as transformers asks for it, within a ``Step``.

    The query heads that share a key head are folded into its queries, so that keys aren't repeated.

    Args:
        query: (lines, heads, columns, width).
        key, value: (studies, key heads, reach, width), from ``Slots.update``.

    Returns (lines, columns, heads, width).
    """
    if step.spread is not None:
        query = query[:, :, 0][step.spread].transpose(1, 2)
    studies, heads, queries, width = query.shape
    folded = query.reshape(studies, key.shape[1], -1, width)
    mask = step.full if sliding_window is None else step.sliding
    if softcap is None:
        seen = F.scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    else:  # Gemma 2
        scores = torch.tanh(folded @ key.transpose(2, 3) * (scaling / softcap)) * softcap
        seen = (
            scores.masked_fill(~mask, float("-inf")).softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value
        )
    out = seen.reshape(studies, heads, queries, width).transpose(1, 2)
    if step.spread is None:
        return out, None
    lines = torch.empty(len(step.rows), 1, heads, width, dtype=out.dtype, device=out.device)
    lines[step.spread, 0] = out
    return lines, None


def decoding(held: Many[int], new: Many[int], groups: int, window: int | None, device: torch.device) -> Step:
    """The step in which study n, with ``held[n]`` tokens in its slot, gets ``new[n]`` more.

    Args:
        groups: query heads that share a key head.
        window: tokens that sliding layers see, the query's own included; None if there are none.
    """
    studies, width = len(new), max(new)
    first = torch.tensor([0, *new[:-1]]).cumsum(0)
    counts = torch.tensor(new)
    offsets = torch.minimum(torch.arange(width)[None], counts[:, None] - 1)
    spread = first[:, None] + offsets
    at = torch.tensor(held)[:, None] + offsets  # (studies, width)
    of_lines = torch.arange(width)[None] < counts[:, None]
    reach = torch.arange(max(a + b for a, b in zip(held, new, strict=True)))
    full = reach <= at[..., None]
    sliding = full if window is None else full & (reach > at[..., None] - window)
    plain = width == 1
    return Step(
        rows=torch.arange(studies).repeat_interleave(counts)[:, None].to(device),
        places=at[of_lines][:, None].to(device),
        full=fold(full, groups).to(device),
        sliding=fold(sliding, groups).to(device),
        studies=studies,
        spread=None if plain else spread.to(device),
    )


def fold(mask: Tensor, groups: int) -> Tensor:
    """(studies, queries, reach) → (studies, 1, groups × queries, reach), as ``attention`` folds its queries."""
    studies, queries, reach = mask.shape
    return mask[:, None, None].expand(-1, -1, groups, -1, -1).reshape(studies, 1, groups * queries, reach)
