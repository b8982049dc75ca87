"""A LoRA adapter's weights, added to a checkpoint's one by one while these are read.

What PEFT does with a model that lies in memory as a whole; for MedGemma-4B in bf16 that alone takes 9 GB.
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
"""What the formula below takes for granted."""


class Merge:
    """What an adapter adds to weights, or puts in their place.

    Attributes:
        astray: weights that it changes and that weren't met yet, or have another shape.
    """

    def __init__(self, config: LoraConfig, tensors: dict[str, Tensor]) -> None:
        rank = config.r
        self._scale = config.lora_alpha / (rank**0.5 if config.use_rslora else rank)
        self._tensors, self._rows = tensors, _rows(config)
        self.astray = set(map(_target, tensors))
        self._changed = frozenset(_target(name) for name in tensors if not name.endswith(_ROWS))

    @classmethod
    def of(cls, adapter: Path) -> "Merge | None":
        """The adapter's, or None where it is of a kind that is left to PEFT.

        Raises OSError, ValueError or SafetensorError where it can't be read.
        """
        config = PeftConfig.from_pretrained(str(adapter))
        if not isinstance(config, LoraConfig) or any(
            getattr(config, name) != kept for name, kept in _PLAIN.items()
        ):
            return None
        if {"embed_tokens", "lm_head"} & set(config.modules_to_save or []):
            return None  # head and embedding may then part
        with safe_open(adapter / _WEIGHTS, framework="pt") as file:
            tensors = {name.removeprefix(_PREFIX): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if any("lora_" in name and not name.endswith((_A, _B)) for name in tensors):
            return None  # of embeddings, for instance
        return cls(config, tensors)

    def changes(self, name: str) -> bool:
        """Whether ``merged`` has anything to do for a weight."""
        return name in self._changed

    def merged(self, name: str, weight: Tensor) -> Tensor:
        """A weight of the checkpoint, in fp32, with what the adapter has for it."""
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
        self.astray.discard(name)
        return weight.float()

    @torch.no_grad()
    def put_rows(self, model: Any) -> None:
        """Put the embeddings that were trained alone into those of a model that has room for them."""
        for name in [name for name in self._tensors if name.endswith(_ROWS)]:
            path = name.removesuffix(_ROWS)
            self.astray.discard(f"{path}.weight")
            weight = model.get_submodule(path).weight
            rows = torch.tensor(self._rows[path.rpartition(".")[2]], device=weight.device)
            weight.index_copy_(0, rows, self._tensors[name].to(weight))


def _target(name: str) -> str:
    """The weight that a tensor of the adapter's is for."""
    ending = next((ending for ending in (_A, _B, _ROWS) if name.endswith(ending)), None)
    return name if ending is None else name.removesuffix(ending) + ".weight"


def _rows(config: LoraConfig) -> dict[str, list[int]]:
    given = config.trainable_token_indices or {}
    return {"embed_tokens": given} if isinstance(given, list) else given
