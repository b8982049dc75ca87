"""A random checkpoint of exactly MedGemma-4B's shape, to try the full size without its weights.

``python -m emx_training.recipes.full_size runs/full-size`` writes 8.6 GB in bf16, at most 2 GB of it in memory at
a time. Such a model's text means nothing; it costs as much to load and to run as MedGemma-4B.
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, PreTrainedTokenizerFast
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from emx_training.pretrain.demo_architecture import (
    build_processor,
    control_tokens,
    generation_config,
)
from emx_training.pretrain.tokenizer import SPECIAL_TOKENS, build_tokenizer
from emx_worker.model.checkpoint import ModelSpec, write_model_spec

_SHARD = 2 * 10**9
"""Bytes of weights in a file, at most."""

_ID = {token: rank for rank, token in enumerate(SPECIAL_TOKENS)}


def medgemma_config() -> Gemma3Config:
    """Return the shape of google/medgemma-4b-it: Gemma 3 of 4 billion parameters with SigLIP at 896 px.

    The control tokens have the ids of this project's tokenizer, whose vocabulary is padded to Gemma's size.
    """
    return Gemma3Config(
        text_config={
            "model_type": "gemma3_text",
            "vocab_size": 262208,
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 34,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 1024,
            "max_position_embeddings": 131072,
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "pad_token_id": _ID["<pad>"],
            "eos_token_id": _ID["<eos>"],
            "bos_token_id": _ID["<bos>"],
        },
        vision_config=siglip(896),
        mm_tokens_per_image=256,
        **control_tokens(),
        dtype="bfloat16",
    )


def siglip(image_size: int) -> dict[str, Any]:
    """Return the shape of the vision tower that MedGemma and PaliGemma share, SigLIP So400m."""
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": image_size,
        "patch_size": 14,
        "vision_use_head": False,
    }


def write(config: Gemma3Config, folder: Path, seed: int = 0, max_new_tokens: int = 120) -> None:
    """Write a checkpoint with random weights, at most 2 GB of them in memory at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        model = Gemma3ForConditionalGeneration(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    where: dict[str, str] = {}
    generator = torch.Generator().manual_seed(seed)
    for number, names in enumerate(track(list(_shards(shapes)), description="Writing weights")):
        file = f"model-{number:05d}.safetensors"
        save_file({name: _drawn(name, shapes[name], generator) for name in names}, folder / file, {"format": "pt"})
        where |= dict.fromkeys(names, file)
    (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(
        json.dumps({"metadata": {}, "weight_map": where}), encoding="utf-8"
    )
    config.architectures = ["Gemma3ForConditionalGeneration"]
    config.save_pretrained(folder)
    generation_config().save_pretrained(folder)
    build_processor(config, full_tokenizer(config.text_config.vocab_size)).save_pretrained(folder)
    spec = ModelSpec(name="random-full-size", revision=f"seed-{seed}", demo=True, max_new_tokens=max_new_tokens)
    write_model_spec(spec, folder)


def full_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Return the demo model's tokenizer, padded with made-up words to a vocabulary of ``size`` tokens."""
    tokenizer = build_tokenizer()
    text = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = text["model"]["vocab"]
    taken = max(max(vocabulary.values()), *(token["id"] for token in text["added_tokens"])) + 1
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ("".join(word) for length in itertools.count(4) for word in itertools.product(letters, repeat=length))
    fresh = (word for word in words if word not in vocabulary)
    vocabulary.update(zip(fresh, range(taken, size), strict=False))
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(text))
    return tokenizer


def _shards(shapes: dict[str, tuple[int, ...]]) -> Iterator[list[str]]:
    """Yield the names of the weights in each file."""
    names: list[str] = []
    size = 0
    for name, shape in shapes.items():
        needed = 2 * torch.Size(shape).numel()
        if names and size + needed > _SHARD:
            yield names
            names, size = [], 0
        names.append(name)
        size += needed
    yield names


def _drawn(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return random weights that preserve a signal's scale; norms and biases are neutral."""
    if len(shape) == 1:
        rest = 1.0 if ("vision" in name and name.endswith("norm.weight")) or "layer_norm" in name else 0.0
        return torch.full(shape, 0.0 if name.endswith("bias") else rest, dtype=torch.bfloat16)
    inputs = torch.Size(shape[1:]).numel()
    drawn = torch.empty(shape, dtype=torch.bfloat16)
    return drawn.normal_(0, inputs**-0.5, generator=generator)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emx_training.recipes.full_size",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="OUT_DIR", help="folder to write the checkpoint to")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--max-new-tokens", type=int, default=120, help="longest report, in tokens")
    options = parser.parse_args()
    write(medgemma_config(), options.folder, options.seed, options.max_new_tokens)


if __name__ == "__main__":
    main()
