"""Quantises to 4 bits: for torch's int4 kernels on the CPU, for bitsandbytes' NF4 on CUDA."""

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from emx_worker.model.int4.group_fitting import GROUP, quantise

Quantisation = Literal["int4-torch", "nf4-bitsandbytes", "bf16", "none"]

ROWS = 16
"""torch's int4 packing requires output widths that are multiples of this."""

_AVX512 = "AVX512" in torch.backends.cpu.get_cpu_capability()

BF16_UNITS = _AVX512 and torch.cpu._is_avx512_bf16_supported()
"""Whether this CPU has units for bf16 products (three times as fast as fp32; emulation would be slower)."""

DENSE_TOKENS = 1024 if _AVX512 and not BF16_UNITS else 160
"""Number of tokens of one image from which on a layer is dequantised and multiplied densely: in bf16 if there are
units for it, else in fp32.

Of one image, not of the batch: the two ways round differently, and a report may not depend on its batch-mates.
Measured for 2560 → 10240 on two cores, milliseconds for int4 | dequantised to fp32: with AVX2 107 | 120 for 128
tokens and 425 | 261 for 512; with AVX-512 186 | 281 for 512 and 658 | 477 for 1,000. Decoding is below either
threshold, and a MedGemma prompt, with an image of 256 tokens, above the first.
"""

LARGEST_IN_FP32 = 2**27
"""A weight with more numbers than this stays in bf16, as in the checkpoint: MedGemma's embedding, which is also
its head, takes 1.3 GB in bf16 and would take 2.7 GB in fp32."""

LARGE_TOWER = 768
"""Width of a vision tower from which on its weights stay in bf16, and it computes in bf16 on a CPU with units for
it. A smaller tower takes little time and memory, and is in fp32 on every CPU."""

DENSE_MODULES = ("model.vision_tower", "model.multi_modal_projector", "lm_head")
"""Parts of a model that stay unquantised: they run once for an image, or decide between neighbouring locations."""


class Int4Linear(nn.Module):
    """A linear layer with 4-bit weights, each group of 32 inputs with its own scale and zero (asymmetric).

    Any floating dtype, shape (..., tokens, in_features) → (..., tokens, out_features). Few tokens go through
    torch's int4 kernel in bf16; ``DENSE_TOKENS`` and more through a dense product.

    Attributes:
        packed: uint8 (out_features, in_features / 2), in the order of this CPU's kernel.
        scales_and_zeros: bf16 (in_features / 32, out_features, 2); a weight is (code - 8) * scale + zero.
    """

    packed: Tensor
    scales_and_zeros: Tensor
    bias: Tensor | None
    _is_hf_initialized: bool = False

    def __init__(self, linear: nn.Linear) -> None:
        """Replace a layer that ``can_be_int4``. A layer without weights (on ``meta``) is filled later."""
        super().__init__()
        self.out_features, self.in_features = outputs, inputs = linear.weight.shape
        device = linear.weight.device
        self.register_buffer("packed", torch.empty(outputs, inputs // 2, dtype=torch.uint8, device=device))
        self.register_buffer(
            "scales_and_zeros", torch.empty(inputs // GROUP, outputs, 2, dtype=torch.bfloat16, device=device)
        )
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())
        if not linear.weight.is_meta:
            self.fill(linear.weight.detach())

    def fill(self, weight: Tensor) -> None:
        """Quantise weights of any floating dtype, (out_features, in_features), into this layer."""
        codes, self.scales_and_zeros = quantise(weight)
        self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Multiply (..., tokens, in_features) with the weights."""
        rows = hidden.reshape(-1, self.in_features)
        if hidden.shape[-2] >= DENSE_TOKENS and packed_order_is_known():
            dtype = torch.bfloat16 if BF16_UNITS else torch.float32
            out = rows.to(dtype) @ self.weights(dtype).t()
        else:
            out = torch.ops.aten._weight_int4pack_mm_for_cpu(
                rows.to(torch.bfloat16), self.packed, GROUP, self.scales_and_zeros
            )
        if self.bias is not None:
            out = out + self.bias
        return out.to(hidden.dtype).view(*hidden.shape[:-1], self.out_features)

    def weights(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Dequantise the weights, (out_features, in_features)."""
        grouped = unpack(self.packed).view(self.out_features, -1, GROUP)
        scale, zero = self.scales_and_zeros.to(dtype).transpose(0, 1).unsqueeze(-1).unbind(-2)
        weights = grouped.to(dtype).sub_(8).mul_(scale).add_(zero)
        return weights.view(self.out_features, self.in_features)


class HalfLinear(nn.Linear):
    """A linear layer whose weights are stored in bf16, and multiplied in the dtype of its input.

    For fp32 input, each call makes an fp32 copy: little work beside the product with thousands of tokens.
    """

    def forward(self, hidden: Tensor) -> Tensor:
        """Multiply (..., in_features) with the weights."""
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        return nn.functional.linear(hidden, self.weight.to(hidden.dtype), bias)


def can_be_int4(linear: nn.Linear) -> bool:
    """Tell whether torch's kernels support a layer of these widths."""
    return linear.in_features % GROUP == 0 and linear.out_features % ROWS == 0


def unpack(packed: Tensor) -> Tensor:
    """Unpack codes (uint8) from torch's packed order, (rows, columns / 2) → (rows, columns).

    The order is that of ``weight_to_int4pack_kernel`` in ATen/native/cpu/int4mm_kernel.cpp: blocks of four
    vectors of rows (64 with AVX-512, 32 otherwise), column by column, the later half of the rows in the high
    nibbles; a last, smaller block has neighbouring rows in one byte.
    """
    rows, half = packed.shape
    columns, block = 2 * half, 64 if _AVX512 else 32
    whole = rows - rows % block
    codes = torch.empty(rows, columns, dtype=torch.uint8)
    body = packed[:whole].reshape(-1, columns, block // 2)
    nibbles = torch.stack([body & 15, body >> 4], dim=2).view(-1, columns, block)
    codes[:whole] = nibbles.transpose(1, 2).reshape(whole, columns)
    if rows > whole:
        tail = packed[whole:].reshape(columns, (rows - whole) // 2)
        codes[whole:] = torch.stack([tail & 15, tail >> 4], dim=2).view(columns, rows - whole).t()
    return codes


@cache
def packed_order_is_known() -> bool:
    """Tell whether ``unpack`` reads what this CPU's kernel packs.

    The order is internal to the kernel. If it is unknown here, as may happen on another architecture, every batch
    goes through the kernel.
    """
    codes = torch.arange(112 * GROUP, dtype=torch.int32).view(112, GROUP) * 7 % 16
    return torch.equal(unpack(torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)), codes)


def to_int4(decoder: nn.Module) -> None:
    """Make a decoder's linear layers int4 in place; layers of unsupported width stay as they are.

    This goes layer by layer, so that it needs the memory of the weights as loaded, not of all of them in fp32.
    """
    for parent in list(decoder.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and can_be_int4(child):
                setattr(parent, name, Int4Linear(child))


def halve_tower(model: Any) -> None:
    """Make the linear layers of a large vision tower ``HalfLinear`` in place; they keep their weights."""
    if not _has_large_tower(model):
        return
    for parent in list(model.model.vision_tower.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                half = HalfLinear(child.in_features, child.out_features, child.bias is not None, device="meta")
                half.weight, half.bias = child.weight, child.bias
                setattr(parent, name, half)


def rest_to_fp32(model: Any) -> None:
    """Convert everything but the int4 layers to fp32 in place, except weights that ``stays_bf16``."""
    for name, weights in model.named_parameters():
        if not stays_bf16(model, name, weights):
            weights.data = weights.data.float()


def stays_bf16(model: Any, name: str, weights: Tensor) -> bool:
    """Tell whether a weight that isn't int4 stays in bf16, as in the checkpoint.

    This holds for weights that are too large for fp32, for those of ``HalfLinear``, and, on a CPU with units for
    bf16, for all of a large vision tower and its projector.
    """
    of_images = name.startswith(("model.vision_tower", "model.multi_modal_projector"))
    if weights.numel() > LARGEST_IN_FP32 or (BF16_UNITS and _has_large_tower(model) and of_images):
        return True
    path, _, kind = name.rpartition(".")
    return kind == "weight" and isinstance(model.get_submodule(path), HalfLinear)


def _has_large_tower(model: Any) -> bool:
    width: int = model.config.vision_config.hidden_size
    return width >= LARGE_TOWER


def nf4_config(device: str) -> BitsAndBytesConfig:
    """Configure NF4 with double quantisation (Dettmers et al., QLoRA, 2023); bf16 arithmetic except on the CPU."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32 if device == "cpu" else torch.bfloat16,
        llm_int8_skip_modules=list(DENSE_MODULES),
    )
