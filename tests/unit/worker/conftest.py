"""Checkpoints to load, and images to read."""

from support.checkpoints import (
    base,
    checkpoint,
    dense,
    engine,
    json_checkpoint,
    loaded,
    paligemma,
    paligemma2,
    paligemma_checkpoint,
    quiet,
    tasks,
)

__all__ = [
    "base",
    "checkpoint",
    "dense",
    "engine",
    "json_checkpoint",
    "loaded",
    "paligemma",
    "paligemma2",
    "paligemma_checkpoint",
    "quiet",
    "tasks",
]
