"""Print how much memory training takes, by phase, weights, image size and batch, and what fits into which GPU.

``python -m emx_training.recipes.training_memory [--json]``

Each figure is counted over two steps at the model's full size, tensor by tensor, on a device without numbers: no
GPU is needed, and nothing is estimated but what CUDA itself takes. Options as the commands have them: LoRA of rank
64, answers of 120 tokens, activations of the decoder recomputed.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import PaliGemmaConfig

from emx_training.finetune.lora import FrozenBase, Phase1Adapter, location_adapter, report_adapter
from emx_training.finetune.memory import meta_model, peak_bytes
from emx_training.pretrain.tokenizer import build_tokenizer
from emx_training.recipes.full_size import medgemma_config, siglip
from emx_worker.model.architectures import Config, architecture_of
from emx_worker.model.checkpoint import BaseCheckpoint

RANK, ANSWER, QUESTION = 64, 120, 20
"""LoRA's rank, tokens of an answer, and tokens of a prompt beside the image's."""

BATCHES = (1, 2, 4, 8, 16)
CARDS = (8, 12, 16, 24)
"""GB of the GPUs that people have."""

CUDA_ITSELF = 1.0e9
"""Bytes that CUDA and its libraries take in each process."""

_USABLE = 0.95
"""Share of a card that tensors can fill; the rest is lost between them."""


@dataclass(frozen=True)
class Case:
    """One thing to train.

    Attributes:
        model: its name.
        config: its shape.
        image_size: pixels along each side.
        image_tokens: tokens of an image in the prompt.
        phase: 1 or 2.
        nf4: whether the frozen linear layers are in NF4; else all is in bf16.
    """

    model: str
    config: Config
    image_size: int
    image_tokens: int
    phase: int
    nf4: bool

    def peaks(self, batches: Sequence[int]) -> dict[int, int]:
        """Return the bytes that the tensors take at most, by the batch."""
        frozen = meta_model(self.config, self.nf4)
        processor: Any = SimpleNamespace(tokenizer=build_tokenizer())
        base = FrozenBase(
            frozen, processor, architecture_of(self.config), BaseCheckpoint(name=self.model, sha256="")
        )
        adapted = report_adapter(base, RANK)
        if self.phase == 2:
            weights = get_peft_model_state_dict(adapted)
            config = LoraConfig(r=RANK, lora_alpha=2 * RANK)
            adapted, _ = location_adapter(
                FrozenBase(adapted.unload(), processor, base.architecture, base.base),
                Phase1Adapter(Path(), config, weights),
            )
        prompt = self.image_tokens + QUESTION
        return {batch: peak_bytes(adapted, batch, prompt, ANSWER, self.image_size) for batch in batches}


def cases() -> list[Case]:
    """Return what is measured: MedGemma's shape, and PaliGemma 2's with two sizes of images."""
    shapes: list[tuple[str, Config, int, int]] = [("MedGemma 4B", medgemma_config(), 896, 256)]
    shapes += [("PaliGemma 2 3B", paligemma2_config(size), size, (size // 14) ** 2) for size in (224, 448)]
    return [Case(*shape, phase, nf4) for shape in shapes for nf4 in (True, False) for phase in (1, 2)]


def paligemma2_config(image_size: int) -> PaliGemmaConfig:
    """Return the shape of google/paligemma2-3b for images of this size."""
    return PaliGemmaConfig(
        text_config={
            "model_type": "gemma2",
            "vocab_size": 257216,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
        },
        vision_config=siglip(image_size) | {"projection_dim": 2304},
        projection_dim=2304,
        image_token_index=257152,
    )


def largest_batch(peaks: dict[int, int], gigabytes: int) -> int | None:
    """Return the largest batch that a card has room for; None if not even one image fits."""
    room = gigabytes * 2**30 * _USABLE - CUDA_ITSELF
    return max((batch for batch, peak in peaks.items() if peak <= room), default=None)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emx_training.recipes.training_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    table = Table(
        "model", "px", "weights", "phase", *(f"batch {n}" for n in BATCHES), *(f"fits {n} GB" for n in CARDS)
    )
    found = []
    for case in track(cases(), "Counting", console=Console(stderr=True)):
        peaks = case.peaks(BATCHES)
        fitting = {card: largest_batch(peaks, card) for card in CARDS}
        what = (case.model, case.image_size, "nf4" if case.nf4 else "bf16", case.phase)
        found.append(
            dict(zip(("model", "image_size", "weights", "phase"), what, strict=True))
            | {"peak_bytes": peaks, "largest_batch": fitting}
        )
        cells = [f"{peak / 1e9:.1f}" for peak in peaks.values()]
        table.add_row(*map(str, what), *cells, *("–" if n is None else str(n) for n in fitting.values()))
    if options.json:
        json.dump(found, sys.stdout, indent=2)
    else:
        Console().print(table)


if __name__ == "__main__":
    main()
