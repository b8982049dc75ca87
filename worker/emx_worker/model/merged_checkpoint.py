"""Writes a model with its adapter merged as one checkpoint, for servers and quantisers that take no adapter."""

from pathlib import Path

from emx_worker.model.checkpoint import ModelError, ModelSpec, write_checkpoint
from emx_worker.model.loading import load_model


def write_merged_checkpoint(checkpoint: Path | str, adapter: Path | None, folder: Path) -> None:
    """Write a checkpoint in bf16 that transformers and vLLM can load, with its ``emx.json`` and guard.

    It takes as much memory as the weights in bf16: 8.6 GB for MedGemma-4B.

    Args:
        checkpoint: directory or hub id.
        adapter: directory written by PEFT; by default the one that the checkpoint's ``emx.json`` names.
        folder: where to; it must be new or empty.

    Raises:
        ModelError: if the folder has files, or the model can't be loaded.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder} has files already: give a new folder.")
    loaded = load_model(checkpoint, adapter=adapter, device="cpu", quantisation="bf16")
    model = loaded.model
    if model.lm_head.weight is not model.get_input_embeddings().weight:  # an adapter may untie them
        model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
    spec = ModelSpec(
        name=loaded.provenance.name,
        dialect=loaded.box_decoding.name,
        demo=loaded.provenance.demo,
        prompt=loaded.prompt,
        max_new_tokens=loaded.max_new_tokens,
        takes_indication=loaded.takes_indication,
    )
    write_checkpoint(model, loaded.processor, spec, folder)
    if loaded.guard is not None:
        loaded.guard.save(folder)
