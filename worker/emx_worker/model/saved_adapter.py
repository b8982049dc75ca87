"""An adapter as PEFT has saved it, with the names that today's models have.

transformers 4.52 moved the parts of models with images: what was ``language_model.model.layers`` is
``model.language_model.layers`` since, and adapters keep the names of their time.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftType
from peft.utils.other import get_pattern_key
from safetensors import safe_open
from torch import Tensor

from emx_worker.model.checkpoint import ModelError

WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_MOVED = (
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head.", "lm_head."),
    ("language_model.", "model.language_model."),
    ("vision_tower.", "model.vision_tower."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
)
"""Beginnings of names before transformers 4.52 and since."""
_LORA = re.compile(r"(.+)\.lora_(?:embedding_)?A(?:\.weight)?")
"""Names of the tensor whose shape tells a layer's rank."""
_WHOLE = (
    ("lm_head.weight", "lm_head.base_layer.weight"),
    ("model.language_model.embed_tokens.weight", "model.language_model.embed_tokens.base_layer.weight"),
)
"""Names of a head, and of an embedding, that were saved as a whole."""
_INJECTED = {
    PeftType.LORA, PeftType.ADALORA, PeftType.IA3, PeftType.LOHA, PeftType.LOKR, PeftType.OFT, PeftType.VERA,
    PeftType.HRA, PeftType.LN_TUNING, PeftType.TRAINABLE_TOKENS,
}  # fmt: skip
"""Kinds of adapters that are part of the model's layers. Others change what goes through the model, such as
prompts that were learnt, and would be left out without a word."""
_UNSUPPORTED = {
    "alora_invocation_tokens": "acts only after some tokens (aLoRA)",
    "arrow_config": "chooses between adapters (Arrow)",
    "layer_replication": "repeats layers (layer_replication)",
    "target_parameters": "changes parameters that aren't those of a layer (target_parameters)",
}
"""Options of LoRA that the engine can't follow."""


class SavedAdapter:
    """A PEFT adapter read from its directory.

    Attributes:
        folder: the directory.
        config: of the adapter, whose patterns name the modules of today.
        tensors: of the adapter, by today's names without PEFT's prefix.
        scales: what LoRA's product is multiplied with, by the path of the layer that it changes.
    """

    def __init__(self, folder: Path) -> None:
        """Read the adapter.

        Raises:
            ModelError: if it is of a kind that can't be used here.
            OSError, ValueError, SafetensorError: if it can't be read.
        """
        self.folder = folder
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            saved = {name.removeprefix(_PREFIX): name for name in file.keys()}  # noqa: SIM118
            named = {_today(name): key for name, key in saved.items()}
            self.tensors: dict[str, Tensor] = {
                name: file.get_tensor(key) for name, key in named.items() if not _is_copy(name, named.keys())
            }
        self.config: Any = PeftConfig.from_pretrained(str(folder))
        self.config.inference_mode = True
        self._refuse_unsupported()
        self.scales: dict[str, float] = {}
        self._name_modules()
        if self.config.peft_type == PeftType.LORA:
            self._name_layers([found[1] for name in saved if (found := _LORA.fullmatch(name))])

    def prefixed(self) -> dict[str, Tensor]:
        """Return the tensors by the names that PEFT gives them."""
        return {_PREFIX + name: tensor for name, tensor in self.tensors.items()}

    def unties(self) -> bool:
        """Tell whether the adapter changes the embedding without the head, or the head without the embedding.

        In a model in which both are one weight, such a change must not be merged into it. Rows of the embedding
        that were trained alone are rows of the head, too, as PEFT keeps these tied.
        """
        parts = ("lm_head.", "embed_tokens.lora_", "embed_tokens.base_layer.")
        return any(part in name for name in self.tensors for part in parts)

    def has_head_of_its_own(self) -> bool:
        """Tell whether the adapter has a whole head and a whole embedding that differ."""
        head, embedding = (
            next((self.tensors[name] for name in names if name in self.tensors), None) for names in _WHOLE
        )
        return head is not None and embedding is not None and not torch.equal(head, embedding)

    def _refuse_unsupported(self) -> None:
        kind = getattr(self.config.peft_type, "value", self.config.peft_type)
        if self.config.peft_type not in _INJECTED:
            raise ModelError(
                f"The adapter in {self.folder} is of PEFT's kind {kind}, which isn't supported: train a LoRA "
                "adapter."
            )
        for option, what in _UNSUPPORTED.items():
            if getattr(self.config, option, None):
                raise ModelError(
                    f"The adapter in {self.folder} {what}, which isn't supported: train a LoRA adapter without it."
                )

    def _name_modules(self) -> None:
        """Give the configuration today's names of the modules that were saved as a whole or in rows."""
        if getattr(self.config, "modules_to_save", None):
            self.config.modules_to_save = [_today(f"{name}.")[:-1] for name in self.config.modules_to_save]
        rows = getattr(self.config, "trainable_token_indices", None)
        if isinstance(rows, Mapping):
            self.config.trainable_token_indices = {_today(f"{name}.")[:-1]: kept for name, kept in rows.items()}

    def _name_layers(self, layers: list[str]) -> None:
        """Give the configuration the layers that have tensors, each with its rank and alpha.

        Its own patterns, which matched the names of its time, choose the alpha.
        """
        config, alphas = self.config, dict[str, float]()
        config.rank_pattern, ranks = {}, config.rank_pattern
        for layer in layers:
            path = _today(f"{layer}.")[:-1]
            rank = self._rank(path)
            alpha = (config.alpha_pattern or {}).get(get_pattern_key(config.alpha_pattern or {}, layer))
            alphas[path] = config.lora_alpha if alpha is None else alpha
            self.scales[path] = alphas[path] / (rank**0.5 if config.use_rslora else rank)
            if ranks or rank != config.r:
                config.rank_pattern[re.escape(path)] = rank
        if config.alpha_pattern:
            config.alpha_pattern = {re.escape(path): alpha for path, alpha in alphas.items()}
        config.target_modules = {_today(f"{layer}.")[:-1] for layer in layers}
        config.exclude_modules = config.layers_to_transform = config.layers_pattern = None

    def _rank(self, path: str) -> int:
        names = (f"{path}.lora_A.weight", f"{path}.lora_embedding_A", f"{path}.lora_embedding_A.weight")
        return next(len(self.tensors[name]) for name in names if name in self.tensors)


def _is_copy(name: str, names: Collection[str]) -> bool:
    """Tell whether PEFT has saved a tensor twice, as it does with embeddings beside an adapter.

    Of a module that was saved as a whole it saves the original, too; of rows of the embedding, those of a tied
    head.
    """
    if ".original_module." in name or name.startswith("lm_head.token_adapter.base_layer."):
        return True
    if name == "lm_head.token_adapter.trainable_tokens_delta":
        return any(other.endswith("embed_tokens.token_adapter.trainable_tokens_delta") for other in names)
    return ".modules_to_save." in name and name.replace(".modules_to_save.", ".") in names


def _today(name: str) -> str:
    """Return the name that a tensor or module has since transformers 4.52."""
    for before, since in _MOVED:
        if name.startswith(before):
            return since + name.removeprefix(before)
    return name
