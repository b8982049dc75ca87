"""Merges a LoRA adapter into a checkpoint's weights, one by one while these are read.

PEFT can do this only with a whole model in memory; for MedGemma-4B in bf16 that alone takes 9 GB.
"""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from safetensors import safe_open
from torch import Tensor

_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_A, _B, _ROWS = ".lora_A.weight", ".lora_B.weight", ".token_adapter.trainable_tokens_delta"
_PLAIN = {"use_dora": False, "fan_in_fan_out": False, "bias": "none", "rank_pattern": {}, "alpha_pattern": {}}
"""Options of a LoRA adapter that the formula below assumes."""


class AdapterMerge:
    """The weights that an adapter adds to those of a checkpoint, or replaces.

    Attributes:
        unmatched: weights that the adapter changes, but that were not merged yet or have another shape.
    """

    def __init__(self, config: LoraConfig, tensors: dict[str, Tensor]) -> None:
        """Prepare the merge.

        Args:
            config: of the adapter.
            tensors: of the adapter, by name without PEFT's prefix.
        """
        rank = config.r
        self._scale = config.lora_alpha / (rank**0.5 if config.use_rslora else rank)
        self._tensors, self._rows = tensors, _rows(config)
        self.unmatched = set(map(_target, tensors))
        self._changed = frozenset(_target(name) for name in tensors if not name.endswith(_ROWS))

    @classmethod
    def read(cls, adapter: Path) -> "AdapterMerge | None":
        """Read an adapter from its directory.

        Returns:
            Its merge; None for a kind of adapter that only PEFT can merge.

        Raises:
            OSError, ValueError, SafetensorError: if the adapter can't be read.
        """
        config = PeftConfig.from_pretrained(str(adapter))
        if not isinstance(config, LoraConfig) or any(
            getattr(config, name) != kept for name, kept in _PLAIN.items()
        ):
            return None
        if {"embed_tokens", "lm_head"} & set(config.modules_to_save or []):
            return None  # head and embedding may then differ
        with safe_open(adapter / _WEIGHTS, framework="pt") as file:
            tensors = {name.removeprefix(_PREFIX): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if any("lora_" in name and not name.endswith((_A, _B)) for name in tensors):
            return None  # of embeddings, for instance
        return cls(config, tensors)

    def changes(self, name: str) -> bool:
        """Tell whether the adapter changes the weight with this name."""
        return name in self._changed

    def merged(self, name: str, weight: Tensor) -> Tensor:
        """Merge the adapter into one weight of the checkpoint, and return it in fp32."""
        path = name.removesuffix(".weight")
        low, high = self._tensors.get(path + _A), self._tensors.get(path + _B)
        if low is not None and high is not None:
            if (len(high), low.shape[1]) != weight.shape or high.shape[1] != len(low):
                return weight.float()
            weight = torch.addmm(weight.float(), high.float(), low.float(), alpha=self._scale)
        elif name in self._tensors:
            if self._tensors[name].shape != weight.shape:
                return weight.float()
            weight = self._tensors[name]
        self.unmatched.discard(name)
        return weight.float()

    @torch.no_grad()
    def put_rows(self, model: Any) -> None:
        """Write the rows of the embedding that were trained alone into a model that has room for them."""
        for name in [name for name in self._tensors if name.endswith(_ROWS)]:
            path = name.removesuffix(_ROWS)
            self.unmatched.discard(f"{path}.weight")
            weight = model.get_submodule(path).weight
            rows = torch.tensor(self._rows[path.rpartition(".")[2]], device=weight.device)
            weight.index_copy_(0, rows, self._tensors[name].to(weight))


def _target(name: str) -> str:
    """Return the name of the weight that a tensor of the adapter changes."""
    ending = next((ending for ending in (_A, _B, _ROWS) if name.endswith(ending)), None)
    return name if ending is None else name.removesuffix(ending) + ".weight"


def _rows(config: LoraConfig) -> dict[str, list[int]]:
    given = config.trainable_token_indices or {}
    return {"embed_tokens": given} if isinstance(given, list) else given
