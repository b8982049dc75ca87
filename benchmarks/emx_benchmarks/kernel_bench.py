"""Measures 4-bit kernels beside each other, at the shapes of MedGemma-4B's decoder."""

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from emx_worker.model.int4.quantisation import Int4Linear

SHAPES = ((2560, 10240), (10240, 2560), (2560, 2048), (2560, 1024), (2048, 2560))
"""(in, out) of the layers: gate and up; down; queries; keys and values; output."""

BATCHES = (1, 4, 16, 64, 300)


def bench_kernels(rounds: int = 5, shapes: tuple[tuple[int, int], ...] = SHAPES[:1]) -> dict[str, Any]:
    """Measure a layer for each kind of weights and number of tokens, and the error of the 4-bit kinds.

    The kinds take turns within each round.

    Args:
        rounds: to measure, after a round that isn't counted.
        shapes: (in, out) of the layers.

    Returns:
        The figures: medians in milliseconds, and relative errors.
    """
    return {
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "layers": [_layer(inputs, outputs, rounds) for inputs, outputs in shapes],
    }


@torch.inference_mode()
def _layer(inputs: int, outputs: int, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    dense = nn.Linear(inputs, outputs, bias=False)
    dense.weight.data = torch.randn(outputs, inputs) / inputs**0.5
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "int4": Int4Linear(dense),
        "nf4": nf4_linear(dense),
        "fp32": dense,
        "bf16": copy.deepcopy(dense).bfloat16(),
    }
    milliseconds: dict[str, dict[str, float]] = {kind: {} for kind in kinds}
    for tokens in BATCHES:
        hidden = torch.randn(1, tokens, inputs)
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        for turn in range(rounds + 1):
            for kind, layer in kinds.items():
                seconds = _timed(layer, hidden.bfloat16() if kind == "bf16" else hidden)
                if turn:
                    taken[kind].append(seconds)
        for kind, seconds_each in taken.items():
            milliseconds[kind][str(tokens)] = round(statistics.median(seconds_each) * 1e3, 3)
    exact = dense(hidden)
    return {
        "in": inputs,
        "out": outputs,
        "milliseconds": milliseconds,
        "relative_error": {kind: round(_error(kinds[kind](hidden), exact), 4) for kind in ("int4", "nf4")},
        **{
            f"int4_speedup_vs_nf4_batch{tokens}": round(
                milliseconds["nf4"][str(tokens)] / milliseconds["int4"][str(tokens)], 2
            )
            for tokens in BATCHES
        },
    }


def nf4_linear(dense: nn.Linear) -> nn.Module:
    """Return a layer on the CPU with a layer's weights in NF4 with double quantisation, computed in fp32."""
    from bitsandbytes.nn import LinearNF4, Params4bit  # takes seconds to import

    layer = LinearNF4(dense.in_features, dense.out_features, bias=False, compute_dtype=torch.float32)
    layer.weight = Params4bit(
        dense.weight.data.clone(), requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    moved: nn.Module = layer.to("cpu")
    return moved


def _timed(layer: Callable[[Tensor], Tensor], hidden: Tensor) -> float:
    """Return the seconds of one call, averaged over at least 20 ms."""
    calls, began = 0, time.perf_counter()
    while not calls or time.perf_counter() - began < 0.02:
        layer(hidden)
        calls += 1
    return (time.perf_counter() - began) / calls


def _error(near: Tensor, exact: Tensor) -> float:
    """Return the root mean square of the difference, relative to that of the exact values."""
    return float((near.float() - exact).norm() / exact.norm())
