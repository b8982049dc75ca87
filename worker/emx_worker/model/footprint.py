"""Computes what a model needs: disk to download it, memory to run it."""

from dataclasses import dataclass

import torch
from torch import nn

from emx_worker.model.architectures import Config, architecture_of
from emx_worker.model.int4.group_fitting import GROUP
from emx_worker.model.int4.quantisation import DENSE_MODULES, LARGE_TOWER, LARGEST_IN_FP32, can_be_int4

NF4_BITS = 4.127
"""Bits of a weight in NF4 with double quantisation (Dettmers et al. 2023)."""

_WORKING = 5 * 10**8
"""Bytes for Python, torch and the activations of one image."""


@dataclass(frozen=True)
class Footprint:
    """The size of a model, in bytes but for ``parameters``.

    Attributes:
        parameters: how many numbers the model has.
        stored: its weights in bf16, as they are downloaded.
        int4: memory to run it with int4 weights on a CPU.
        nf4: memory to run it with NF4 and bf16 on CUDA.
        bf16: memory to run it in bf16.
        full: memory to run it in fp32.
    """

    parameters: int
    stored: int
    int4: int
    nf4: int
    bf16: int
    full: int

    def prefers_bf16(self, free: int) -> bool:
        """Tell whether a CUDA device with so many bytes free runs it in bf16: half is for the images in hand."""
        return 2 * self.bf16 <= free


def footprint(config: Config) -> Footprint:
    """Compute a model's footprint from its configuration. No weights are loaded."""
    with torch.device("meta"):
        model = architecture_of(config).model(config)
    packed = {
        id(layer.weight)
        for layer in model.model.language_model.modules()
        if isinstance(layer, nn.Linear) and can_be_int4(layer)
    }
    large = config.vision_config.hidden_size >= LARGE_TOWER
    halved = {id(weight) for weight in model.model.vision_tower.parameters() if large and weight.ndim == 2}
    linear = {
        id(layer.weight)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and not name.startswith(DENSE_MODULES)
    }
    weights = list(model.parameters())
    count = sum(weight.numel() for weight in weights)
    return Footprint(
        parameters=count,
        stored=2 * count,
        int4=_WORKING + sum(_int4(weight, id(weight) in packed, id(weight) in halved) for weight in weights),
        nf4=_WORKING + sum(round(w.numel() * (NF4_BITS / 8 if id(w) in linear else 2)) for w in weights),
        bf16=_WORKING + 2 * count,
        full=_WORKING + 4 * count,
    )


def _int4(weight: nn.Parameter, packed: bool, halved: bool) -> int:
    """Return the bytes of a weight: if packed, half a byte a number and 4 bytes a group; else fp32 or bf16."""
    numbers = weight.numel()
    if packed:
        return numbers // 2 + 4 * numbers // GROUP
    return numbers * (2 if halved or numbers > LARGEST_IN_FP32 else 4)
