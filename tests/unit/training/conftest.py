"""Checkpoints to train."""

from support.checkpoints import base, paligemma, paligemma2

__all__ = ["base", "paligemma", "paligemma2"]
