"""Puts a PEFT adapter, as QLoRA training saves it, on a checkpoint."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from safetensors import SafetensorError, safe_open

from emx_worker.model.adapter_merging import AdapterMerge
from emx_worker.model.architectures import Model, Processor
from emx_worker.model.checkpoint import ModelError

_WEIGHTS = "adapter_model.safetensors"
_EMBEDDING = ("embed_tokens.weight", "embed_tokens.base_layer.weight")
"""Endings of the name of an embedding that was saved as a whole."""
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
        ModelError: if the adapter is damaged, or belongs to another model.
    """
    resize_embeddings(model, processor, adapter)
    wrapped = _wrapped(model, adapter)
    return wrapped.merge_and_unload() if merge else wrapped.get_base_model()


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
    try:
        merge = AdapterMerge.read(adapter)
    except Exception as error:  # OSError, ValueError, SafetensorError: absent, damaged, or unknown to PEFT
        raise ModelError(f"The adapter in {adapter} can't be read ({error}): save it again.") from error
    if merge is None:
        return None
    model = read(merge)
    resize_embeddings(model, processor, adapter)
    merge.put_rows(model)
    _refuse_unmatched(adapter, merge.unmatched)
    return model


def resize_embeddings(model: Model, processor: Processor, adapter: Path) -> None:
    """Give the processor the adapter's tokenizer, and the model embeddings for its tokens. Raises ModelError."""
    shapes = _shapes(adapter)
    known_tokens = len(processor.tokenizer)
    take_tokenizer(processor, adapter)
    tokens = len(processor.tokenizer)
    embedding = next((shape for name, shape in shapes.items() if name.endswith(_EMBEDDING)), None)
    if tokens > known_tokens and embedding is None and not any(name.endswith(_ROWS) for name in shapes):
        raise ModelError(
            f"The adapter in {adapter} adds {tokens - known_tokens} tokens without embeddings for them: save it "
            "with trainable_token_indices, or with embed_tokens and lm_head in modules_to_save."
        )
    rows = embedding[0] if embedding else max(tokens, model.get_input_embeddings().num_embeddings)
    if rows != model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(rows, mean_resizing=False)


def take_tokenizer(processor: Processor, adapter: Path) -> None:
    """Give the processor the adapter's tokenizer, if it has one, in place. Raises ModelError."""
    if (adapter / "tokenizer.json").is_file():
        processor.tokenizer = _tokenizer(type(processor.tokenizer), adapter)


def _shapes(adapter: Path) -> dict[str, list[int]]:
    try:
        with safe_open(adapter / _WEIGHTS, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{adapter / _WEIGHTS} can't be read ({error}): save the adapter again.") from error


def _tokenizer(kind: Any, adapter: Path) -> Any:
    try:
        return kind.from_pretrained(adapter)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, … for a damaged file
        raise ModelError(
            f"The tokenizer in {adapter} can't be loaded ({error}): restore it from where it was trained."
        ) from error


def _wrapped(model: Model, adapter: Path) -> PeftModel:
    try:
        config = PeftConfig.from_pretrained(str(adapter))
        config.inference_mode = True
        # The dtype of the base weights suffices: an fp32 copy of a whole embedding takes gigabytes.
        wrapped = PeftModel(model, config, autocast_adapter_dtype=False)
        result = wrapped.load_adapter(str(adapter), "default", autocast_adapter_dtype=False)
    except Exception as error:  # OSError, ValueError, RuntimeError: absent, unknown or of another shape
        raise ModelError(
            f"The adapter in {adapter} doesn't fit this model ({error}): give the checkpoint it was trained on."
        ) from error
    # PEFT ignores weights that it finds no place for, and leaves layers without weights as they are initialised.
    _refuse_unmatched(adapter, [*result.missing_keys, *result.unexpected_keys])
    return wrapped


def _refuse_unmatched(adapter: Path, unmatched: Collection[str]) -> None:
    if unmatched:
        raise ModelError(
            f"The adapter in {adapter} was made for a model with other layers ({len(unmatched)} tensors differ, "
            f"first {min(unmatched)}): give the checkpoint it was trained on."
        )
