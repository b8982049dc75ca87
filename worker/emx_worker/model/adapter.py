"""Puts a PEFT adapter, as QLoRA training saves it, on a checkpoint."""

import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.lora import LoraLayer
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from peft.utils import ModulesToSaveWrapper, set_peft_model_state_dict
from peft.utils.other import TrainableTokensWrapper
from torch import nn

from emx_worker.model.adapter_merging import AdapterMerge
from emx_worker.model.architectures import Model, Processor
from emx_worker.model.checkpoint import ModelError
from emx_worker.model.saved_adapter import SavedAdapter

_NAME = "default"
"""PEFT's name for the adapter."""
_EMBEDDING = (
    "embed_tokens.weight", "embed_tokens.base_layer.weight", "embed_tokens.token_adapter.base_layer.weight",
    "lm_head.weight", "lm_head.base_layer.weight",
)  # fmt: skip
"""Endings of the name of an embedding, or head, that was saved as a whole."""
_ROWS = "embed_tokens.token_adapter.trainable_tokens_delta"
"""Ending of the name of an embedding's rows that were saved alone."""


def apply_adapter(model: Model, processor: Processor, adapter: Path, *, merge: bool) -> Model:
    """Return a model with an adapter's weights.

    Args:
        model: of the checkpoint.
        processor: gets the adapter's tokenizer, if it has one, in place.
        adapter: its directory.
        merge: add the adapter to the weights, instead of computing it beside them.

    Raises:
        ModelError: if the adapter is damaged, of a kind that isn't supported, or belongs to another model.
    """
    saved = read_adapter(adapter)
    resize_embeddings(model, processor, saved)
    wrapped = _wrapped(model, saved)
    if merge:
        return _merged(wrapped, saved)
    model = wrapped.get_base_model()
    _write_rows(model)
    return model


def read_adapter(folder: Path) -> SavedAdapter:
    """Read an adapter. Raises ModelError if it is damaged or of a kind that isn't supported."""
    try:
        return SavedAdapter(folder)
    except ModelError:
        raise
    except Exception as error:  # OSError, ValueError, SafetensorError: absent, damaged, or unknown to PEFT
        raise ModelError(f"The adapter in {folder} can't be read ({error}): save the adapter again.") from error


def read_with_adapter_merged(
    read: Callable[[AdapterMerge], Model], processor: Processor, adapter: Path
) -> Model | None:
    """Read a checkpoint's weights with an adapter merged into them.

    Args:
        read: reads the weights, and merges the adapter that it gets.
        processor: gets the adapter's tokenizer, if it has one, in place.
        adapter: its directory.

    Returns:
        The model; None if only ``apply_adapter`` can merge this adapter.

    Raises:
        ModelError: if the adapter is damaged, or belongs to another model.
    """
    saved = read_adapter(adapter)
    if not AdapterMerge.mergeable(saved):
        return None
    merge = AdapterMerge(saved)
    model = read(merge)
    resize_embeddings(model, processor, saved)
    merge.put_rows(model)
    _refuse_unmatched(adapter, merge.unmatched)
    return model


def resize_embeddings(model: Model, processor: Processor, adapter: SavedAdapter) -> None:
    """Give the processor the adapter's tokenizer, and the model embeddings for its tokens. Raises ModelError."""
    known_tokens = len(processor.tokenizer)
    take_tokenizer(processor, adapter.folder)
    tokens = len(processor.tokenizer)
    embedding = next((one.shape for name, one in adapter.tensors.items() if name.endswith(_EMBEDDING)), None)
    if tokens > known_tokens and embedding is None and not any(name.endswith(_ROWS) for name in adapter.tensors):
        raise ModelError(
            f"The adapter in {adapter.folder} adds {tokens - known_tokens} tokens without embeddings for them: "
            "save it with trainable_token_indices, or with embed_tokens and lm_head in modules_to_save."
        )
    rows = embedding[0] if embedding else max(tokens, model.get_input_embeddings().num_embeddings)
    if rows != model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(rows, mean_resizing=False)


def take_tokenizer(processor: Processor, adapter: Path) -> None:
    """Give the processor the adapter's tokenizer, if it has one, in place. Raises ModelError."""
    if (adapter / "tokenizer.json").is_file():
        processor.tokenizer = _tokenizer(type(processor.tokenizer), adapter)


def _tokenizer(kind: Any, adapter: Path) -> Any:
    try:
        return kind.from_pretrained(adapter)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, … for a damaged file
        raise ModelError(
            f"The tokenizer in {adapter} can't be loaded ({error}): restore it from where it was trained."
        ) from error


def _wrapped(model: Model, adapter: SavedAdapter) -> PeftModel:
    _refuse_unmatched(adapter.folder, adapter.scales.keys() - {name for name, _ in model.named_modules()})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tied weights and missing biases, which are looked after below
            # The dtype of the base weights suffices: an fp32 copy of a whole embedding takes gigabytes.
            wrapped = PeftModel(model, adapter.config, _NAME, autocast_adapter_dtype=False)
        whole_head = isinstance(wrapped.get_output_embeddings(), ModulesToSaveWrapper)
        if adapter.has_head_of_its_own() and not whole_head:
            _untie(wrapped)  # else loading the head would overwrite the embedding
        result = set_peft_model_state_dict(wrapped, adapter.prefixed(), _NAME)
    except Exception as error:  # OSError, ValueError, RuntimeError: absent, unknown or of another shape
        raise ModelError(
            f"The adapter in {adapter.folder} doesn't fit this model ({error}): give the checkpoint it was "
            "trained on."
        ) from error
    # PEFT ignores weights that it finds no place for, and leaves layers without weights as they are initialised.
    own = PEFT_TYPE_TO_PREFIX_MAPPING.get(adapter.config.peft_type, "")
    missing = [name for name in result.missing_keys if own in name and _NAME in name]
    _refuse_unmatched(adapter.folder, [*missing, *result.unexpected_keys])
    return wrapped.eval()


@torch.no_grad()
def _write_rows(model: Model) -> None:
    """Write rows of the embedding that were trained alone into it, and take away what PEFT wrapped it in.

    PEFT would copy the whole embedding in each forward pass to put them in, and once more for the head: 2.7 GB for
    each token of MedGemma-4B.
    """
    for name, module in list(model.named_modules()):
        layer = module.token_adapter if isinstance(module, TrainableTokensWrapper) else module
        if isinstance(layer, TrainableTokensLayer) and not name.endswith(".token_adapter"):
            base = layer.get_base_layer()
            base.weight[layer.token_indices[_NAME]] = layer.trainable_tokens_delta[_NAME].to(base.weight)
            model.set_submodule(name, base)


def _merged(wrapped: PeftModel, adapter: SavedAdapter) -> Model:
    if adapter.unties():
        _untie(wrapped)
    for layer in wrapped.modules():
        if isinstance(layer, LoraLayer) and any(layer.lora_bias.values()):
            _give_bias(layer.get_base_layer())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return wrapped.merge_and_unload()
    except Exception as error:  # ValueError, RuntimeError, …, depending on the kind of adapter
        raise ModelError(
            f"The adapter in {adapter.folder} can't be merged into the weights ({error}): use nf4, which computes "
            "it beside them."
        ) from error


def _untie(wrapped: PeftModel) -> None:
    """Give the head a weight of its own if it has that of the embedding, so that each is merged with its own."""
    model = wrapped.get_base_model()
    head, embedding = (_base_of(part) for part in (model.get_output_embeddings(), model.get_input_embeddings()))
    if head.weight is embedding.weight:
        head.weight = nn.Parameter(embedding.weight.detach().clone(), requires_grad=False)


def _base_of(module: Any) -> Any:
    """Return the layer that PEFT has wrapped, in however many ways."""
    while (inner := getattr(module, "base_layer", None) or getattr(module, "original_module", None)) is not None:
        module = inner
    return module


def _give_bias(layer: Any) -> None:
    """Give a linear layer without a bias one of zeros, to which that of LoRA can be added."""
    if isinstance(layer, nn.Linear) and layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros_like(layer.weight[:, 0]), requires_grad=False)


def _refuse_unmatched(adapter: Path, unmatched: Collection[str]) -> None:
    if unmatched:
        raise ModelError(
            f"The adapter in {adapter} was made for a model with other layers ({len(unmatched)} tensors differ, "
            f"first {min(unmatched)}): give the checkpoint it was trained on."
        )
