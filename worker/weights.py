"""A checkpoint's weights, into the model they belong to."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from worker.architectures import Config, Model, architecture_of
from worker.checkpoint import ModelError
from worker.stored import stored_tensors


def read_weights(folder: Path, config: Config, **options: Any) -> Model:
    """The model, whole; ``options`` are those of ``from_pretrained``. Raises ModelError."""
    options |= {"use_safetensors": True, "config": config, "output_loading_info": True}
    try:
        model, info = architecture_of(config).model.from_pretrained(folder, **options)
    except Exception as error:  # OSError, SafetensorError, RuntimeError, … depending on what is broken
        raise _unreadable(folder, error) from error
    _require_all(folder, info["missing_keys"])
    return model


def _unreadable(folder: Path, error: Exception) -> ModelError:
    return ModelError(f"The weights in {folder} can't be loaded ({error}): fetch them again.")


def _require_all(folder: Path, missing: Iterable[str]) -> None:
    """transformers fills missing tensors with random numbers and only warns."""
    if lacking := sorted(missing):
        raise ModelError(
            f"The weights in {folder} lack {len(lacking)} tensors, first {lacking[0]}: fetch the checkpoint again."
        )


def read_as_stored(folder: Path, config: Config, **options: Any) -> Model:
    """The same, but each tensor is read when it is needed, and isn't kept. Raises ModelError."""
    try:
        tensors = stored_tensors(folder)
        model, info = architecture_of(config).model.from_pretrained(
            None, state_dict=tensors, config=config, output_loading_info=True, **options
        )
    except Exception as error:  # as above
        raise _unreadable(folder, error) from error
    _require_all(folder, info["missing_keys"])
    model.generation_config = read_generation_config(folder, model)
    return model


def read_generation_config(folder: Path, model: Model) -> GenerationConfig:
    """The checkpoint's, or what follows from its configuration."""
    if not (folder / "generation_config.json").is_file():
        return model.generation_config
    return GenerationConfig.from_pretrained(folder)
