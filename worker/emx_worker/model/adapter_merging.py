"""Merges a LoRA adapter into a checkpoint's weights, one by one while these are read.

PEFT can do this only with a whole model in memory; for MedGemma-4B in bf16 that alone takes 9 GB.
"""

from typing import Any

import torch
from peft import LoraConfig, PeftType
from torch import Tensor

from emx_worker.model.saved_adapter import SavedAdapter

_A, _B, _ROWS = ".lora_A.weight", ".lora_B.weight", ".token_adapter.trainable_tokens_delta"
_FOLLOWED = {
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "lora_dropout", "modules_to_save", "trainable_token_indices",
    "init_lora_weights", "ensure_weight_tying", "base_model_name_or_path", "revision", "task_type",
    "inference_mode", "auto_mapping", "peft_version", "runtime_config",
}  # fmt: skip
"""Options of a LoRA adapter that the formula below follows, or that make no difference to it. With any other, such
as DoRA's, only PEFT can merge."""


class AdapterMerge:
    """The weights that an adapter adds to those of a checkpoint, or replaces.

    Attributes:
        unmatched: weights that the adapter changes, but that were not merged yet or have another shape.
    """

    def __init__(self, adapter: SavedAdapter) -> None:
        """Prepare the merge of an adapter that is ``mergeable``."""
        self._tensors, self._scales = adapter.tensors, adapter.scales
        self._rows = _rows(adapter.config)
        self.unmatched = set(map(_target, self._tensors))
        self._changed = frozenset(_target(name) for name in self._tensors if not name.endswith(_ROWS))

    @staticmethod
    def mergeable(adapter: SavedAdapter) -> bool:
        """Tell whether an adapter can be merged so, or only by PEFT."""
        config = adapter.config
        if config.peft_type != PeftType.LORA or adapter.unties():
            return False
        plain = LoraConfig().to_dict()
        if any(value != plain.get(name) for name, value in config.to_dict().items() if name not in _FOLLOWED):
            return False
        if config.init_lora_weights not in (True, False, "gaussian"):
            return False  # some ways to begin change the weights of the checkpoint
        if {"embed_tokens", "lm_head"} & {name.rpartition(".")[2] for name in config.modules_to_save or []}:
            return False  # head and embedding may then differ
        if any(".base_layer." in name for name in adapter.tensors):
            return False
        # Others are of embeddings or biases, for instance
        return all(name.endswith((_A, _B)) for name in adapter.tensors if "lora_" in name)

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
            weight = torch.addmm(weight.float(), high.float(), low.float(), alpha=self._scales[path])
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
    if isinstance(given, list):
        return {"embed_tokens": given}
    return {name.rpartition(".")[2]: rows for name, rows in given.items()}
