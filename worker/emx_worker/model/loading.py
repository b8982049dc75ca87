"""Loads a checkpoint, from disk or from the hub, as a model that the engine can run."""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from emx_shared.contracts.report import ModelProvenance
from emx_worker.model.architectures import Architecture, Config, Model, Processor, architecture_of
from emx_worker.model.box_decoding import (
    BOX_DECODINGS,
    Box2dDecoding,
    BoxDecoding,
    LocDecoding,
    UnsuitableTokenizer,
    first_location,
)
from emx_worker.model.checkpoint import (
    MODEL_SPEC_FILE,
    ModelError,
    locate,
    name_of,
    read_config,
    read_model_spec,
    read_processor,
    require_base,
    require_directory,
    revision_of,
)
from emx_worker.model.footprint import footprint
from emx_worker.model.int4 import cache
from emx_worker.model.int4.quantisation import Quantisation, halve_tower, nf4_config, rest_to_fp32, to_int4
from emx_worker.model.int4.streaming import Int4Config, return_freed_memory
from emx_worker.model.ood_guard import OodGuard
from emx_worker.model.weights import read_as_stored, read_generation_config, read_weights

if TYPE_CHECKING:
    from emx_worker.model.adapter_merging import AdapterMerge

ENGINE = "continuous-batching"

_KINDS: dict[str, Quantisation] = {
    "int4": "int4-torch",
    "nf4": "nf4-bitsandbytes",
    "bf16": "bf16",
    "none": "none",
}
"""What reports call each kind of weights."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """One model, ready to run, and everything that a report says about it.

    Attributes:
        model: in evaluation mode, on ``device``.
        processor: its tokenizer and image processor.
        architecture: its family.
        box_decoding: how it writes boxes.
        provenance: what reports say about it.
        prompt: the question that it is asked.
        max_new_tokens: the budget of one report, its end-of-turn token included.
        device: where it runs.
        takes_indication: whether it gets clinical context after the question.
        guard: declines images that are unlike those of training; None to read everything.
    """

    model: Model
    processor: Processor
    architecture: Architecture
    box_decoding: BoxDecoding
    provenance: ModelProvenance
    prompt: str
    max_new_tokens: int
    device: torch.device
    takes_indication: bool = False
    guard: OodGuard | None = None


def load_model(
    checkpoint: Path | str,
    *,
    adapter: Path | str | None = None,
    revision: str | None = None,
    device: str = "auto",
    quantisation: str = "auto",
) -> LoadedModel:
    """Load a checkpoint of Gemma 3 with images, or of PaliGemma, with its processor.

    Args:
        checkpoint: a directory, or a hub id such as ``google/medgemma-4b-it``, which is downloaded on first use
            and taken from the local cache when offline.
        adapter: directory written by PEFT; by default the one that the checkpoint's ``emx.json`` names. If it has
            a tokenizer or an ``emx.json``, these replace the checkpoint's. If its ``emx.json`` says what the
            adapter was trained on, the checkpoint must be that.
        revision: commit, branch or tag on the hub.
        device: ``auto`` (CUDA if available, else the CPU), or what ``torch.device`` takes.
        quantisation: ``int4`` (torch's CPU kernels), ``nf4`` (bitsandbytes), ``bf16``, ``none`` (fp32), or
            ``auto``: int4 on the CPU; on CUDA bf16 where it takes at most half of the free memory, else nf4; none
            elsewhere.

    Raises:
        ModelError: if the model can't be loaded; the text says what to do.
    """
    target = _device(device)
    _require_quantisation(quantisation, target)
    folder = locate(checkpoint, revision)
    adapter_folder = _adapter(folder, adapter)
    if adapter_folder is not None:
        require_base(adapter_folder, checkpoint, folder)
    spec = read_model_spec(folder, *([adapter_folder] if adapter_folder else []))
    config = read_config(folder)
    kind = _quantisation(quantisation, target, config)
    processor = read_processor(folder, config)
    if kind == "int4-torch":
        model = _int4(folder, adapter_folder, config, processor)
    else:
        model = _weights(folder, config, kind, target)
        if adapter_folder is not None:
            # Merged into NF4 weights, the sum would be rounded to 4 bits once more than in QLoRA training.
            model = _adapted(model, processor, adapter_folder, merge=kind != "nf4-bitsandbytes")
    model = model.eval().requires_grad_(False).to(target)
    untrained = adapter_folder is None and not (folder / MODEL_SPEC_FILE).is_file()
    decoding = _box_decoding(spec.dialect, processor, model)
    return LoadedModel(
        model=model,
        processor=processor,
        architecture=architecture_of(config),
        box_decoding=decoding,
        provenance=ModelProvenance(
            name=name_of(checkpoint, folder, spec),
            revision=spec.revision or revision_of(folder),
            adapter=f"{adapter_folder.name}@{revision_of(adapter_folder)[:12]}" if adapter_folder else None,
            quantisation=kind,
            engine=ENGINE,
            dialect=decoding.name,
            demo=spec.demo,
            untrained=untrained,
        ),
        prompt=spec.prompt or decoding.question,
        max_new_tokens=spec.max_new_tokens,
        takes_indication=spec.takes_indication or untrained,
        device=target,
        guard=OodGuard.load(folder),
    )


def _adapter(folder: Path, chosen: Path | str | None) -> Path | None:
    if chosen is not None:
        return require_directory(Path(chosen))
    own = read_model_spec(folder).adapter
    return require_directory(folder / own) if own else None


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"There is no device {name!r}: use auto, cpu or cuda.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("torch finds no CUDA device here: use device auto or cpu, or install torch for CUDA.")
    return device


def _require_quantisation(name: str, device: torch.device) -> None:
    """Refuse a kind that doesn't exist, or not on this device, before anything is downloaded."""
    if name != "auto" and name not in _KINDS:
        raise ModelError(f"Unknown quantisation {name!r}: use auto, int4, nf4, bf16 or none.")
    if name == "int4" and device.type != "cpu":
        raise ModelError("int4 runs on the CPU only: use nf4 or bf16 on this device.")


def _quantisation(name: str, device: torch.device, config: Config) -> Quantisation:
    if name == "auto":
        name = {"cuda": "nf4", "cpu": "int4"}.get(device.type, "none")
        if device.type == "cuda" and footprint(config).prefers_bf16(torch.cuda.mem_get_info(device)[0]):
            name = "bf16"
    return _KINDS[name]


def _weights(folder: Path, config: Config, kind: Quantisation, device: torch.device) -> Model:
    if kind == "none":
        return read_weights(folder, config, dtype=torch.float32)
    if kind == "bf16":
        return read_weights(folder, config, dtype=torch.bfloat16)
    return read_weights(
        folder,
        config,
        dtype=torch.float32 if device.type == "cpu" else torch.bfloat16,
        quantization_config=nf4_config(device.type),
        device_map={"": device},
    )


def _int4(folder: Path, adapter: Path | None, config: Config, processor: Processor) -> Model:
    """Load int4 weights from the cache, or quantise them and cache them. An adapter is merged first."""
    cached = cache.cache_file(folder, adapter)
    model = cache.load(cached, config) if cached else None
    if model is None:
        model = _quantised_int4(folder, adapter, config, processor)
        if cached and cache.save(model, cached):
            del model  # mapped from disk, the weights need no memory of their own
            gc.collect()
            return_freed_memory()
            model = cache.load(cached, config) or _quantised_int4(folder, adapter, config, processor)
    elif adapter is not None:
        from emx_worker.model.adapter import take_tokenizer

        take_tokenizer(processor, adapter)
    model.generation_config = read_generation_config(folder, model)
    return model


def _quantised_int4(folder: Path, adapter: Path | None, config: Config, processor: Processor) -> Model:
    def read(merge: "AdapterMerge | None" = None) -> Model:
        return read_as_stored(folder, config, dtype=torch.bfloat16, quantization_config=Int4Config(merge))

    if adapter is None:
        return read()
    from emx_worker.model.adapter import read_with_adapter_merged

    if (merged := read_with_adapter_merged(read, processor, adapter)) is not None:
        return merged
    # In bf16, as stored: a whole 4B model in fp32 wouldn't fit into 16 GB of memory.
    model = _adapted(read_weights(folder, config, dtype="auto"), processor, adapter, merge=True)
    to_int4(model.model.language_model)
    halve_tower(model)
    rest_to_fp32(model)
    return model


def _adapted(model: Model, processor: Processor, adapter: Path, merge: bool) -> Model:
    from emx_worker.model.adapter import apply_adapter

    return apply_adapter(model, processor, adapter, merge=merge)


def _box_decoding(name: str | None, processor: Processor, model: Model) -> BoxDecoding:
    """Choose by name, or by the tokenizer: ``loc`` if it has the location tokens, else ``box_2d``."""
    if name is None:
        name = Box2dDecoding.name if first_location(processor.tokenizer) is None else LocDecoding.name
    kinds = {kind.name: kind for kind in BOX_DECODINGS}
    if name not in kinds:
        raise ModelError(
            f"This model writes boxes in the dialect {name!r}, but this version supports only "
            f"{' and '.join(kinds)}: correct its emx.json, or use a newer version."
        )
    eos = model.generation_config.eos_token_id
    eos = processor.tokenizer.eos_token_id if eos is None else eos
    try:
        return kinds[name](
            processor.tokenizer,
            eos=frozenset(eos if isinstance(eos, list) else [eos]),
            vocabulary=model.get_input_embeddings().weight.shape[0],
        )
    except UnsuitableTokenizer as error:
        raise ModelError(
            f"This model can't write boxes in the dialect {name!r} ({error}): correct its emx.json, or give an "
            "adapter trained with <loc0000> to <loc1023>."
        ) from error
