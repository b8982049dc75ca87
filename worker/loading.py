"""From a checkpoint, on disk or on the hub, to a model that the engine can run."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from peft import PeftModel
from transformers import AutoConfig, AutoProcessor, Gemma3ForConditionalGeneration

from shared.report import ModelProvenance
from worker.dialects import Dialect, LocDialect, UnknownDialect
from worker.quantisation import Quantisation, nf4_config, to_int4

MANIFEST = "emx.json"
ENGINE = "transformers-static-batch"
PROMPT = "Report this chest radiograph."
"""What a model without a manifest is asked."""
MAX_NEW_TOKENS = 512
"""Token budget of a model without a manifest."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model"]


class ModelError(RuntimeError):
    """The model can't be loaded or run; the text says what to do about it."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """One model, ready to run, and everything that a report says of it.

    Attributes:
        model: in evaluation mode, on ``device``.
        max_new_tokens: the budget of one report, its end-of-turn token included.
    """

    model: Gemma3ForConditionalGeneration
    processor: Any
    dialect: Dialect
    provenance: ModelProvenance
    prompt: str
    max_new_tokens: int
    device: torch.device


def load_model(
    checkpoint: Path | str,
    *,
    adapter: Path | str | None = None,
    revision: str | None = None,
    device: str = "auto",
    quantisation: str = "auto",
) -> LoadedModel:
    """Load a Gemma 3 checkpoint with its processor.

    Parameters:
        checkpoint: a directory, or a hub id such as ``google/medgemma-4b-it``, which is downloaded on first use
            and taken from the local cache when offline.
        adapter: directory written by PEFT. Where it holds a tokenizer or an ``emx.json``, these replace the
            checkpoint's.
        revision: commit, branch or tag on the hub.
        device: ``auto`` (CUDA if there is one), or what ``torch.device`` takes.
        quantisation: ``int4`` (torch's CPU kernels), ``nf4`` (bitsandbytes), ``none`` (fp32), or ``auto``: nf4 on
            CUDA, int4 on the CPU.

    Raises ModelError.
    """
    target = _device(device)
    kind = _quantisation(quantisation, target)
    folder = _folder(checkpoint, revision)
    adapter_folder = None if adapter is None else _directory(Path(adapter))
    manifest = _manifest(folder, adapter_folder)
    processor = _processor(folder, adapter_folder)
    model = _weights(folder, kind, target)
    if adapter_folder is not None:
        model = _adapted(model, adapter_folder, processor, kind)
    if kind == "int4-torch":
        to_int4(model, model.model.language_model)
    model = model.eval().requires_grad_(False).to(target)
    provenance = ModelProvenance(
        name=manifest.get("name") or str(checkpoint),
        revision=manifest.get("revision") or _revision(folder),
        adapter=None if adapter_folder is None else adapter_folder.name,
        quantisation=kind,
        engine=ENGINE,
        dialect=manifest.get("dialect", LocDialect.name),
        demo=manifest.get("demo", False),
    )
    return LoadedModel(
        model=model,
        processor=processor,
        dialect=_dialect(provenance.dialect, processor, model),
        provenance=provenance,
        prompt=manifest.get("prompt", PROMPT),
        max_new_tokens=manifest.get("max_new_tokens", MAX_NEW_TOKENS),
        device=target,
    )


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


def _quantisation(name: str, device: torch.device) -> Quantisation:
    if name == "auto":
        name = "nf4" if device.type == "cuda" else "int4"
    kinds: dict[str, Quantisation] = {"int4": "int4-torch", "nf4": "nf4-bitsandbytes", "none": "none"}
    if name not in kinds:
        raise ModelError(f"Unknown quantisation {name!r}: use auto, int4, nf4 or none.")
    if name == "int4" and device.type != "cpu":
        raise ModelError("int4 runs on the CPU only: use nf4 on this device.")
    return kinds[name]


def _folder(checkpoint: Path | str, revision: str | None) -> Path:
    path = Path(checkpoint)
    if path.is_dir() or isinstance(checkpoint, Path) or not _HUB_ID.fullmatch(checkpoint):
        return _directory(path)
    try:
        return Path(snapshot_download(checkpoint, revision=revision, allow_patterns=_HUB_FILES))
    except Exception as error:  # the hub client raises its own, httpx's and the system's errors
        raise ModelError(
            f"{checkpoint} is neither a directory here nor could it be had from the hub "
            f"({type(error).__name__}): check the name, the network, and your access to the model."
        ) from error


def _directory(path: Path) -> Path:
    if not path.is_dir():
        raise ModelError(f"There is no directory {path}: give a checkpoint's directory or a hub id.")
    return path


def _manifest(*folders: Path | None) -> dict[str, Any]:
    """What the manifests say; later folders overrule earlier ones."""
    merged: dict[str, Any] = {}
    for folder in folders:
        if folder is not None and (folder / MANIFEST).is_file():
            try:
                merged |= json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            except (ValueError, TypeError):
                raise ModelError(f"{folder / MANIFEST} isn't a JSON object: write it again.") from None
    return merged


def _processor(folder: Path, adapter: Path | None) -> Any:
    try:
        processor = AutoProcessor.from_pretrained(folder)
        if adapter is not None and (adapter / "tokenizer.json").is_file():
            # The adapter may have been saved with its tokenizer alone; the images are the checkpoint's affair.
            processor.tokenizer = type(processor.tokenizer).from_pretrained(adapter)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, … for a damaged processor
        raise ModelError(
            f"The processor in {folder} can't be loaded ({error}): restore its tokenizer and processor files."
        ) from error
    return processor


def _weights(folder: Path, kind: Quantisation, device: torch.device) -> Gemma3ForConditionalGeneration:
    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:  # as above
        raise ModelError(f"{folder} has no config.json that transformers can read ({error}).") from error
    if config.model_type != "gemma3":
        raise ModelError(
            f"{folder} holds a {config.model_type} model: this worker runs Gemma 3 with images (gemma3), such as "
            "google/medgemma-4b-it."
        )
    options: dict[str, Any] = {"dtype": torch.float32}
    if kind == "nf4-bitsandbytes":
        options = {
            "dtype": torch.float32 if device.type == "cpu" else torch.bfloat16,
            "quantization_config": nf4_config(device.type),
            "device_map": {"": device},
        }
    elif kind == "int4-torch":
        # As stored, in bf16: the whole of a 4B model in fp32 wouldn't fit into 16 GB of memory.
        options = {"dtype": "auto"}
    try:
        model, info = Gemma3ForConditionalGeneration.from_pretrained(
            folder, config=config, use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # OSError, SafetensorError, RuntimeError, … depending on what is broken
        raise ModelError(f"The weights in {folder} can't be loaded ({error}): fetch them again.") from error
    # transformers fills missing tensors with random numbers and only warns.
    if lacking := sorted(info["missing_keys"]):
        raise ModelError(
            f"The weights in {folder} lack {len(lacking)} tensors, first {lacking[0]}: fetch the checkpoint again."
        )
    return model


def _adapted(
    model: Gemma3ForConditionalGeneration, adapter: Path, processor: Any, kind: Quantisation
) -> Gemma3ForConditionalGeneration:
    if len(processor.tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    try:
        adapted = PeftModel.from_pretrained(model, str(adapter))
    except Exception as error:  # OSError, ValueError, RuntimeError: absent, unknown or of another shape
        raise ModelError(f"The adapter in {adapter} doesn't fit this model ({error}).") from error
    # Merged into NF4 weights, the sum would be rounded to 4 bits once more than in QLoRA training.
    return adapted.get_base_model() if kind == "nf4-bitsandbytes" else adapted.merge_and_unload()


def _revision(folder: Path) -> str:
    """The commit of a hub snapshot, else the SHA-256 of the weights."""
    if folder.parent.name == "snapshots":
        return folder.name
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _dialect(name: str, processor: Any, model: Gemma3ForConditionalGeneration) -> Dialect:
    if name != LocDialect.name:
        raise ModelError(f"This model writes boxes in the dialect {name!r}, which this version doesn't know.")
    eos = model.generation_config.eos_token_id
    eos = processor.tokenizer.eos_token_id if eos is None else eos
    try:
        return LocDialect(
            processor.tokenizer,
            eos=frozenset(eos if isinstance(eos, list) else [eos]),
            vocabulary=model.get_input_embeddings().weight.shape[0],
        )
    except UnknownDialect as error:
        raise ModelError(
            f"This model can't write boxes ({error}): give an adapter trained with <loc0000> to <loc1023>."
        ) from error
