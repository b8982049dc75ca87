"""A PEFT adapter on top of a checkpoint, as QLoRA training leaves it."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from safetensors import SafetensorError, safe_open

from emx_worker.model.adapter_merging import Merge
from emx_worker.model.architectures import Model, Processor
from emx_worker.model.checkpoint import ModelError

_WEIGHTS = "adapter_model.safetensors"
_EMBEDDING = ("embed_tokens.weight", "embed_tokens.base_layer.weight")
"""How the names of a whole saved embedding end."""
_ROWS = "embed_tokens.token_adapter.trainable_tokens_delta"
"""How the name of single saved rows of it ends."""


def adapted(model: Model, processor: Processor, adapter: Path, *, merge: bool) -> Model:
    """The model with the adapter's weights, and the processor, in place, with its tokenizer where it has one.

    ``merge``: add the adapter to the weights, instead of computing it beside them. Raises ModelError.
    """
    make_room(model, processor, adapter)
    wrapped = _wrapped(model, adapter)
    return wrapped.merge_and_unload() if merge else wrapped.get_base_model()


def adapted_while_read(read: Callable[[Merge], Model], processor: Processor, adapter: Path) -> Model | None:
    """The model that ``read`` makes with what it is given to merge; None where only ``adapted`` can do that.

    The processor gets, in place, the adapter's tokenizer. Raises ModelError.
    """
    try:
        merge = Merge.of(adapter)
    except Exception as error:  # OSError, ValueError, SafetensorError: absent, damaged, or unknown to PEFT
        raise ModelError(f"The adapter in {adapter} can't be read ({error}): save it again.") from error
    if merge is None:
        return None
    model = read(merge)
    make_room(model, processor, adapter)
    merge.put_rows(model)
    _refuse_astray(adapter, merge.astray)
    return model


def make_room(model: Model, processor: Processor, adapter: Path) -> None:
    """Give the processor the adapter's tokenizer, and the model embeddings for it. Raises ModelError."""
    shapes = _shapes(adapter)
    known_tokens = len(processor.tokenizer)
    take_tokenizer(processor, adapter)
    tokens = len(processor.tokenizer)
    embedding = next((shape for name, shape in shapes.items() if name.endswith(_EMBEDDING)), None)
    if tokens > known_tokens and embedding is None and not any(name.endswith(_ROWS) for name in shapes):
        raise ModelError(
            f"The adapter in {adapter} adds {tokens - known_tokens} tokens and has no embedding for them: save it "
            "with trainable_token_indices, or with embed_tokens and lm_head in modules_to_save."
        )
    rows = embedding[0] if embedding else max(tokens, model.get_input_embeddings().num_embeddings)
    if rows != model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(rows, mean_resizing=False)


def take_tokenizer(processor: Processor, adapter: Path) -> None:
    """Give the processor, in place, the adapter's tokenizer where it has one. Raises ModelError."""
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
        # The type of the base weights will do: of a whole embedding, an fp32 copy takes gigabytes.
        wrapped = PeftModel(model, config, autocast_adapter_dtype=False)
        result = wrapped.load_adapter(str(adapter), "default", autocast_adapter_dtype=False)
    except Exception as error:  # OSError, ValueError, RuntimeError: absent, unknown or of another shape
        raise ModelError(
            f"The adapter in {adapter} doesn't fit this model ({error}): give the checkpoint it was trained on."
        ) from error
    # PEFT leaves out what it finds no place for, and starts what it finds no weights for at nothing.
    _refuse_astray(adapter, [*result.missing_keys, *result.unexpected_keys])
    return wrapped


def _refuse_astray(adapter: Path, astray: Collection[str]) -> None:
    if astray:
        raise ModelError(
            f"The adapter in {adapter} was made for a model with other layers ({len(astray)} tensors differ, "
            f"first {min(astray)}): give the checkpoint it was trained on."
        )
