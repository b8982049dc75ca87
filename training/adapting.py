"""A checkpoint with a LoRA adapter on top, ready to be trained (QLoRA: Dettmers et al., NeurIPS 2023)."""

import re
import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, load_peft_weights
from transformers import Gemma3ForConditionalGeneration, Gemma3Processor

from shared.grammar import LOC_BINS
from worker.checkpoint import ModelError, locate, read_config, read_processor, read_weights
from worker.dialects import first_location
from worker.quantisation import nf4_config

LAYERS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""The text layers. The vision tower stays as it is."""

PROJECTOR = "multi_modal_projector"
_LORA = re.compile(r"(lora_[AB])\.weight$")
"""PEFT leaves the adapter's name out of what it saves."""


def load_base(checkpoint: str, quantisation: str) -> tuple[Gemma3ForConditionalGeneration, Gemma3Processor]:
    """The model to adapt, its weights frozen, and its processor.

    ``quantisation``: nf4, none, or auto (nf4 where there is CUDA). Raises ModelError.
    """
    folder = locate(checkpoint, None)
    config = read_config(folder)
    on_cuda = torch.cuda.is_available()
    options: dict[str, Any] = {"dtype": torch.bfloat16 if on_cuda else torch.float32}
    if quantisation == "nf4" or (quantisation == "auto" and on_cuda):
        device = "cuda" if on_cuda else "cpu"
        options |= {"quantization_config": nf4_config(device), "device_map": {"": device}}
    model = read_weights(folder, config, **options)
    model.requires_grad_(False)
    return model, read_processor(folder)


def for_reports(model: Gemma3ForConditionalGeneration, rank: int) -> PeftModel:
    """Phase 1: LoRA on the text layers."""
    return _thrifty(get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LAYERS)))


def for_locations(
    model: Gemma3ForConditionalGeneration, processor: Gemma3Processor, phase1: Path
) -> tuple[PeftModel, int]:
    """Phase 2: phase 1's LoRA goes on, with the projector and the 1,024 location rows beside it.

    Tokens that the tokenizer lacks are added to it. Returns the model and the id of ``<loc0000>``.
    Raises ModelError.
    """
    tokenizer = processor.tokenizer
    tokenizer.add_tokens([f"<loc{number:04d}>" for number in range(LOC_BINS)])
    first = first_location(tokenizer)
    if first is None:
        raise ModelError("This tokenizer has some location tokens and not others: it can't be taught boxes.")
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    try:
        before = LoraConfig.from_pretrained(str(phase1))
        weights = load_peft_weights(str(phase1), device="cpu")
    except (OSError, ValueError) as error:
        raise ModelError(f"{phase1} holds no adapter of phase 1 ({error}).") from None
    config = LoraConfig(
        r=before.r,
        lora_alpha=before.lora_alpha,
        target_modules=LAYERS,
        modules_to_save=[PROJECTOR],
        trainable_token_indices={"embed_tokens": list(range(first, first + LOC_BINS))},
    )
    adapted = get_peft_model(model, config)
    named = {_LORA.sub(r"\1.default.weight", name): weight for name, weight in weights.items()}
    try:
        astray = adapted.load_state_dict(named, strict=False).unexpected_keys
    except RuntimeError as error:  # other shapes
        astray = [str(error).splitlines()[-1].strip()]
    if astray:
        raise ModelError(f"The adapter in {phase1} was made for another base ({astray[0]}): give that one.")
    return _thrifty(adapted), first


def _thrifty(model: PeftModel) -> PeftModel:
    """Forget activations and compute them again: memory for time."""
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    print(f"{trained:,} of {model.num_parameters():,} weights are trained.", file=sys.stderr)
    return model
