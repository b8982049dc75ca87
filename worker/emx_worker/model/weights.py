"""Reads a checkpoint's weights into the model that they belong to."""

from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from emx_worker.model.architectures import Config, Model, architecture_of
from emx_worker.model.checkpoint import ModelError
from emx_worker.model.int4.stored_tensors import stored_tensors


def read_weights(folder: Path, config: Config, **options: Any) -> Model:
    """Read the whole model. ``options`` are those of ``from_pretrained``. Raises ModelError."""
    return _read(folder, config, as_stored=False, options=options)


def read_as_stored(folder: Path, config: Config, **options: Any) -> Model:
    """Read the model tensor by tensor, without keeping any of them, and without its generation configuration.

    ``options`` are those of ``from_pretrained``. Raises ModelError.
    """
    return _read(folder, config, as_stored=True, options=options)


def _read(folder: Path, config: Config, as_stored: bool, options: dict[str, Any]) -> Model:
    path = None if as_stored else folder
    try:
        source = {"state_dict": stored_tensors(folder)} if as_stored else {"use_safetensors": True}
        model, info = architecture_of(config).model.from_pretrained(
            path, config=config, output_loading_info=True, **source, **options
        )
    except Exception as error:  # OSError, SafetensorError, RuntimeError, … depending on what is broken
        raise ModelError(f"The weights in {folder} can't be loaded ({error}): fetch them again.") from error
    # transformers fills missing tensors with random numbers and only warns.
    if lacking := sorted(info["missing_keys"]):
        raise ModelError(
            f"The weights in {folder} lack {len(lacking)} tensors, first {lacking[0]}: fetch the checkpoint again."
        )
    return model


def read_generation_config(folder: Path, model: Model) -> GenerationConfig:
    """Read a checkpoint's generation configuration; without one, return what follows from the model's."""
    if not (folder / "generation_config.json").is_file():
        return model.generation_config
    return GenerationConfig.from_pretrained(folder)
