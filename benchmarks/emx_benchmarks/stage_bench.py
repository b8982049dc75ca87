"""Measures where the time of one image goes, beside the least that this machine's arithmetic and memory allow."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from emx_training.evaluate.phantom_reader import image_task_of
from emx_training.phantoms import held_out_seeds, render
from emx_worker.engine.decoder_runner import DecoderRunner
from emx_worker.engine.encoder import ImageEncoder
from emx_worker.engine.engine import Engine
from emx_worker.engine.head import GreedyHead
from emx_worker.image_task import Generation
from emx_worker.model.architectures import image_patches
from emx_worker.model.int4.quantisation import Int4Linear
from emx_worker.model.loading import LoadedModel

_STEPS: dict[str, tuple[type, str]] = {
    "vision": (ImageEncoder, "encode"),
    "prefill": (DecoderRunner, "prefill"),
    "decode": (DecoderRunner, "decode_step"),
    "head": (GreedyHead, "choose"),
}
_GEMM, _READ = 2048, 2**28


@dataclass
class StageClock:
    """Times the engine's stages: the seconds of each call."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in _STEPS})

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time the calls of every engine in this process meanwhile."""
        plain = {stage: getattr(owner, name) for stage, (owner, name) in _STEPS.items()}
        for stage, (owner, name) in _STEPS.items():
            setattr(owner, name, self._timed(stage, plain[stage]))
        try:
            yield
        finally:
            for stage, (owner, name) in _STEPS.items():
                setattr(owner, name, plain[stage])

    def _timed(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            began = time.perf_counter()
            result = call(*arguments)
            self.seconds[stage].append(time.perf_counter() - began)
            return result

        return timed


def bench_stages(load: Callable[[], LoadedModel]) -> dict[str, Any]:
    """Measure one image, read alone after a start: seconds of each stage, its bound, and the peak memory.

    Bounds: the floating-point operations of the matrix products, divided by the rate that a large product of fp32
    matrices reaches here; the bytes of the weights that a token needs, divided by the rate at which memory is read
    here.
    """
    began = time.perf_counter()
    loaded = load()
    engine = Engine(loaded, max_batch=1)
    ready = time.perf_counter() - began
    size = loaded.model.config.vision_config.image_size
    task = image_task_of("0", Image.fromarray(render(held_out_seeds(1)[0], size).image))
    clock = StageClock()
    with clock.watching():
        began = time.perf_counter()
        (generation,) = engine.generate([task])
        total = time.perf_counter() - began
    if not isinstance(generation, Generation):
        raise RuntimeError(f"the image was not read: {generation.message}")
    memory = peak_memory()
    peak, bandwidth = gemm_peak(), read_bandwidth()
    work = _work(loaded, generation.prompt_tokens)
    bounds = {
        "vision": work["vision_flop"] / peak,
        "prefill": work["prefill_flop"] / peak,
        "decode": work["decode_bytes"] / bandwidth,
        "head": work["head_bytes"] / bandwidth,
    }
    return {
        "model": loaded.provenance.name,
        "quantisation": loaded.provenance.quantisation,
        "threads": torch.get_num_threads(),
        "start_seconds": round(ready, 1),
        "study_seconds": round(total, 2),
        "prompt_tokens": generation.prompt_tokens,
        "generated_tokens": len(generation.tokens),
        "gemm_gflops": round(peak / 1e9, 1),
        "read_gb_per_second": round(bandwidth / 1e9, 1),
        "stages": {
            stage: {
                "calls": len(seconds),
                "seconds": round(sum(seconds), 3),
                "seconds_per_call": round(statistics.median(seconds), 7),
                "bound_per_call": round(bounds[stage], 9),
            }
            for stage, seconds in clock.seconds.items()
            if seconds
        },
        "peak_memory_gb": memory,
    }


def gemm_peak() -> float:
    """Measure the floating-point operations per second of a large product of fp32 matrices: the best of seven."""
    left, right = torch.randn(_GEMM, _GEMM), torch.randn(_GEMM, _GEMM)
    return 2 * _GEMM**3 / _best(lambda: left @ right)


def read_bandwidth() -> float:
    """Measure the bytes per second at which a tensor too large for caches is read: the best of seven."""
    values = torch.ones(_READ)
    return values.numel() * values.itemsize / _best(values.sum)


def _best(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _work(loaded: LoadedModel, prompt: int) -> dict[str, float]:
    tower, decoder = loaded.model.model.vision_tower, loaded.model.model.language_model
    vision = loaded.model.config.vision_config
    patches = image_patches(loaded.model.config)
    seen = sum(weight.numel() for weight in tower.parameters() if weight.ndim > 1)
    attention = 4 * patches**2 * vision.hidden_size * vision.num_hidden_layers
    layers = [layer for layer in decoder.modules() if isinstance(layer, Int4Linear | nn.Linear)]
    head = loaded.model.lm_head.weight
    return {
        "vision_flop": 2.0 * patches * seen + attention,
        "prefill_flop": 2.0 * prompt * sum(layer.in_features * layer.out_features for layer in layers),
        "decode_bytes": float(sum(map(_bytes, layers))),
        "head_bytes": float(head.numel() * head.itemsize),
    }


def _bytes(layer: nn.Module) -> int:
    tensors = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


def peak_memory() -> float | None:
    """Return the largest resident memory of this process so far, in GB (10⁹ bytes); None except on Linux."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return round(kilobytes * 1024 / 1e9, 2)
