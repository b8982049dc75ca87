"""A checkpoint to load."""

from support.checkpoints import quiet, tiny_checkpoint

__all__ = ["quiet", "tiny_checkpoint"]
