"""Measures what it costs an image to be decoded in a process of its own."""

import io
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from emx_shared.imaging import decode
from emx_shared.imaging.decoder_pool import DecoderPool
from emx_shared.settings import Settings

SIDES = ((1024, 1024), (2048, 2500), (3000, 3000), (4280, 3520))
"""Widths and heights in pixels: a data set's, and three detectors'."""

_WARM = 3


def bench_decoding(rounds: int, sides: tuple[tuple[int, int], ...] = SIDES) -> dict[str, Any]:
    """Decode PNGs in this process and in a pool's in turn.

    Args:
        rounds: how often each.
        sides: widths and heights, in pixels.

    Returns:
        For each size, the median milliseconds of both and of their differences.
    """
    pool = DecoderPool(1, Settings())
    try:
        return {"images": [_row(pool, width, height, rounds) for width, height in sides], "rounds": rounds}
    finally:
        pool.close()


def _row(pool: DecoderPool, width: int, height: int, rounds: int) -> dict[str, Any]:
    data = _film(width, height)
    for _ in range(_WARM):
        pool.decode(data)
    here, there = [], []
    for _ in range(rounds):
        here.append(_milliseconds(lambda: decode(data)))
        there.append(_milliseconds(lambda: pool.decode(data)))
    return {
        "width": width,
        "height": height,
        "kibibytes": len(data) // 1024,
        "in_process": statistics.median(here),
        "in_pool": statistics.median(there),
        "cost": statistics.median(b - a for a, b in zip(here, there, strict=True)),
    }


def _film(width: int, height: int) -> bytes:
    """Return a PNG of smooth noise, which compresses about as a radiograph does."""
    noise = np.random.default_rng(0).normal(128, 20, (height // 4, width // 4)).clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(stream, "PNG")
    return stream.getvalue()


def _milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000
