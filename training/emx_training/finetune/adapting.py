"""A checkpoint with a LoRA adapter on top, ready to be trained (QLoRA: Dettmers et al., NeurIPS 2023)."""

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
from emx_training.pretrain.tokenizer import PROMPT
from emx_worker.model.architectures import Architecture, Model, Processor, architecture_of
from emx_worker.model.box_decoding import first_location
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
"""The text layers. The vision tower stays as it is."""

PROJECTOR = "multi_modal_projector"
_LORA = re.compile(r"(lora_[AB])\.weight$")
"""PEFT leaves the adapter's name out of what it saves."""


@dataclass(frozen=True, eq=False)
class Foundation:
    """What an adapter is trained on: a model whose weights are frozen, its processor, and which it is."""

    model: Model
    processor: Processor
    architecture: Architecture
    base: BaseCheckpoint

    def describe(self, output: Path) -> None:
        """Write what a worker must know of the adapter that will be in ``output``: tokenizer, prompt, base.

        Of several processes, one writes.
        """
        if not PartialState().is_main_process:
            return
        self.processor.tokenizer.save_pretrained(output)
        spec = read_model_spec(output).model_copy(update={"base": self.base, "dialect": "loc", "prompt": PROMPT})
        part = output / f"{MODEL_SPEC_FILE}.part"
        text = spec.model_dump_json(indent=2, exclude_unset=True, exclude_none=True)
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(output / MODEL_SPEC_FILE)


def load_base(checkpoint: str, quantisation: str, adapters: Sequence[Path] = ()) -> Foundation:
    """The model to adapt.

    Args:
        checkpoint: directory or hub id.
        quantisation: nf4, none, or auto (nf4 where there is CUDA).
        adapters: directories of adapters that must belong to this checkpoint, if they say what they belong to.

    Raises ModelError.
    """
    folder = locate(checkpoint, None)
    for adapter in adapters:
        require_base(adapter, checkpoint, folder)
    config = read_config(folder)
    on_cuda = torch.cuda.is_available()
    options: dict[str, Any] = {"dtype": torch.bfloat16 if on_cuda else torch.float32}
    if quantisation == "nf4" or (quantisation == "auto" and on_cuda):
        device = "cuda" if on_cuda else "cpu"
        options |= {"quantization_config": nf4_config(device), "device_map": {"": device}}
    model = read_weights(folder, config, **options)
    model.requires_grad_(False)
    base = describe_base(checkpoint, folder)
    model.name_or_path = model.config._name_or_path = base.name  # PEFT writes them: no path of this machine
    return Foundation(model, read_processor(folder, config), architecture_of(config), base)


def for_reports(foundation: Foundation, rank: int) -> PeftModel:
    """Phase 1: LoRA on the text layers."""
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LAYERS, revision=foundation.base.commit)
    return _thrifty(get_peft_model(foundation.model, config))


def for_locations(foundation: Foundation, phase1: Path) -> tuple[PeftModel, int]:
    """Phase 2: phase 1's LoRA goes on, with the projector and the 1,024 location rows beside it.

    Tokens that the tokenizer lacks are added to it. Returns the model and the id of ``<loc0000>``.
    Raises ModelError.
    """
    model, tokenizer = foundation.model, foundation.processor.tokenizer
    tokenizer.add_tokens([f"<loc{number:04d}>" for number in range(LOC_BINS)])
    first = first_location(tokenizer)
    if first is None:
        raise ModelError("This tokenizer has some location tokens and not others: it can't be taught boxes.")
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    before, weights = _phase1(phase1)
    config = LoraConfig(
        r=before.r,
        lora_alpha=before.lora_alpha,
        target_modules=LAYERS,
        modules_to_save=[PROJECTOR],
        trainable_token_indices={"embed_tokens": list(range(first, first + LOC_BINS))},
        revision=foundation.base.commit,
    )
    adapted = get_peft_model(model, config)
    named = {_LORA.sub(r"\1.default.weight", name): weight for name, weight in weights.items()}
    wanted = {name for name in adapted.state_dict() if "lora_" in name}
    astray = sorted(wanted ^ named.keys())
    try:
        adapted.load_state_dict(named, strict=False)
    except RuntimeError as error:  # other shapes
        astray.append(str(error).splitlines()[-1].strip())
    if astray:
        raise ModelError(
            f"The adapter in {phase1} isn't one of phase 1 for this base ({astray[0]}): give the base it was "
            "trained on."
        )
    return _thrifty(adapted), first


def _phase1(folder: Path) -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    try:
        return LoraConfig.from_pretrained(str(require_directory(folder))), load_peft_weights(
            str(folder), device="cpu"
        )
    except ModelError:
        raise
    except Exception as error:  # OSError, ValueError, SafetensorError, …: absent, cut short, or of another kind
        raise ModelError(f"{folder} holds no adapter of phase 1 ({error}): train it again.") from error


def _thrifty(model: PeftModel) -> PeftModel:
    """Forget activations and compute them again: memory for time."""
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    print(f"{trained:,} of {model.num_parameters():,} weights are trained.", file=sys.stderr)
    return model
