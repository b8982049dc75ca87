"""A checkpoint with a LoRA adapter to train on top (QLoRA: Dettmers et al., NeurIPS 2023)."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig, PeftModel, get_peft_model, load_peft_weights

from emx_shared.grammar import LOC_BINS
from emx_training.finetune.location_rows import initial_rows, train_rows_alone
from emx_training.pretrain.tokenizer import PROMPT
from emx_worker.model.architectures import Architecture, Model, Processor, architecture_of
from emx_worker.model.box_decoding import LocDecoding, first_location
from emx_worker.model.checkpoint import (
    MODEL_SPEC_FILE,
    BaseCheckpoint,
    ModelError,
    describe_base,
    locate,
    read_config,
    read_model_spec,
    read_processor,
    require_base,
    require_directory,
)
from emx_worker.model.int4.quantisation import nf4_config
from emx_worker.model.weights import read_weights

LAYERS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""The text layers, as a pattern of module names. The vision tower stays frozen."""

PROJECTOR = "multi_modal_projector"
_LORA = re.compile(r"(lora_[AB])\.weight$")
"""The end of a saved weight's name, from which PEFT leaves out the adapter's name."""


@dataclass(frozen=True, eq=False)
class FrozenBase:
    """The model that an adapter is trained on, with frozen weights.

    Attributes:
        model: the base.
        processor: the base's.
        architecture: the base's family.
        base: which checkpoint it is, as the adapter's emx.json names it.
    """

    model: Model
    processor: Processor
    architecture: Architecture
    base: BaseCheckpoint

    def describe(self, output: Path) -> None:
        """Write what a worker must know about the adapter in ``output``: tokenizer, prompt, dialect and base.

        An adapter without location tokens, as phase 1 trains it for Gemma 3, gets no dialect of its own.

        With several processes, only the main one writes.
        """
        if not processes().is_main_process:
            return
        self.processor.tokenizer.save_pretrained(output)
        dialect = None if first_location(self.processor.tokenizer) is None else LocDecoding.name
        known = {"base": self.base, "dialect": dialect, "prompt": PROMPT}
        spec = read_model_spec(output).model_copy(update=known)
        part = output / f"{MODEL_SPEC_FILE}.part"
        text = spec.model_dump_json(indent=2, exclude_unset=True, exclude_none=True)
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(output / MODEL_SPEC_FILE)


def processes() -> PartialState:
    """Return the processes that train together, one on each GPU, or on the CPU where there is none."""
    return PartialState(cpu=not torch.cuda.is_available())


def compute_dtype() -> torch.dtype:
    """Return the dtype of the frozen weights: bf16 on a GPU that computes in it, else fp32."""
    return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32


def load_base(checkpoint: str, quantisation: str, adapters: Sequence[Path] = ()) -> FrozenBase:
    """Load the model to adapt.

    Args:
        checkpoint: directory or hub id.
        quantisation: nf4, none, or auto (nf4 if there is CUDA).
        adapters: directories of adapters that must belong to this checkpoint, if they name their base.

    Raises:
        ModelError: if the checkpoint can't be loaded, or an adapter belongs to another one.
    """
    folder = locate(checkpoint, None)
    for adapter in adapters:
        require_base(adapter, checkpoint, folder)
    config = read_config(folder)
    device = processes().device
    options: dict[str, Any] = {"dtype": compute_dtype()}
    if quantisation == "nf4" or (quantisation == "auto" and device.type == "cuda"):
        options |= {"quantization_config": nf4_config(device.type), "device_map": {"": device}}
    model = read_weights(folder, config, **options)
    model.requires_grad_(False)
    base = describe_base(checkpoint, folder)
    model.name_or_path = model.config._name_or_path = base.name  # PEFT writes them: no path of this machine
    return FrozenBase(model, read_processor(folder, config), architecture_of(config), base)


def report_adapter(base_model: FrozenBase, rank: int) -> PeftModel:
    """Return the model with phase 1's adapter: LoRA on the text layers."""
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LAYERS, revision=base_model.base.commit)
    return _ready(get_peft_model(base_model.model, config))


def location_adapter(base_model: FrozenBase, phase1: "Phase1Adapter") -> tuple[PeftModel, int]:
    """Return the model with phase 2's adapter: phase 1's LoRA, the projector and the 1,024 location rows.

    Location tokens that the tokenizer lacks are added to it.

    Args:
        base_model: the model to adapt.
        phase1: phase 1's adapter.

    Returns:
        The model, and the id of ``<loc0000>``.

    Raises:
        ModelError: if the tokenizer has only some location tokens, or ``phase1`` doesn't fit this base.
    """
    trained, weights = phase1.config, phase1.weights
    first = _add_locations(base_model.model, base_model.processor.tokenizer)
    config = LoraConfig(
        r=trained.r,
        lora_alpha=trained.lora_alpha,
        target_modules=LAYERS,
        modules_to_save=[PROJECTOR],
        trainable_token_indices={"embed_tokens": list(range(first, first + LOC_BINS))},
        revision=base_model.base.commit,
    )
    adapted = get_peft_model(base_model.model, config)
    named = {_LORA.sub(r"\1.default.weight", name): weight for name, weight in weights.items()}
    wanted = {name for name in adapted.state_dict() if "lora_" in name}
    misfits = sorted(wanted ^ named.keys())
    try:
        adapted.load_state_dict(named, strict=False)
    except RuntimeError as error:  # other shapes
        misfits.append(str(error).splitlines()[-1].strip())
    if misfits:
        raise ModelError(
            f"The adapter in {phase1.folder} isn't a phase 1 adapter for this base ({misfits[0]}): give the base "
            "that it was trained on."
        )
    train_rows_alone(adapted)
    return _ready(adapted), first


def _add_locations(model: Model, tokenizer: Any) -> int:
    """Add the location tokens that a tokenizer lacks, with embeddings. Return the id of the first."""
    has_none = first_location(tokenizer) is None
    tokenizer.add_tokens([f"<loc{number:04d}>" for number in range(LOC_BINS)])
    first = first_location(tokenizer)
    if first is None:
        raise ModelError(
            "This tokenizer has only some of the location tokens: choose a base that has all or none of them."
        )
    known = model.get_input_embeddings().weight
    if len(tokenizer) > len(known):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if has_none:
        for weight in {id(each): each for each in _embeddings(model)}.values():
            weight.data[first : first + LOC_BINS] = initial_rows(known.detach())
    return first


def _embeddings(model: Model) -> tuple[torch.Tensor, torch.Tensor]:
    return model.get_input_embeddings().weight, model.get_output_embeddings().weight


@dataclass(frozen=True, eq=False)
class Phase1Adapter:
    """An adapter that phase 1 has saved.

    Attributes:
        folder: where it is.
        config: of its LoRA.
        weights: by PEFT's names.
    """

    folder: Path
    config: LoraConfig
    weights: dict[str, torch.Tensor]


def read_phase1(folder: Path) -> Phase1Adapter:
    """Read phase 1's adapter. Raises ModelError if there is none, or it is damaged."""
    try:
        config = LoraConfig.from_pretrained(str(require_directory(folder)))
        return Phase1Adapter(folder, config, load_peft_weights(str(folder), device="cpu"))
    except ModelError:
        raise
    except Exception as error:  # OSError, ValueError, SafetensorError, …: missing, truncated or of another kind
        raise ModelError(f"{folder} contains no phase 1 adapter ({error}): run phase 1 again.") from error


def _ready(model: PeftModel) -> PeftModel:
    """Prepare a model for training.

    The decoder's activations are recomputed in the backward pass instead of kept: less memory, more time. Nothing
    of the frozen tower is kept or recomputed, as nothing before it is trained. Trained weights are fp32 whatever
    the base is: steps of a small rate are lost in bf16.
    """
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    tower = model.get_base_model().model.vision_tower
    tower.forward = torch.no_grad()(tower.forward)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    print(f"{trained:,} of {model.num_parameters():,} weights are trained.", file=sys.stderr)
    return model
