"""Counts the engine's work, for a heartbeat that watches it from another thread."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


class EngineProgress:
    """Counts steps: a forward pass, or each layer of one with many tokens, which may take long on a CPU.

    Attributes:
        steps: how many so far.
    """

    def __init__(self) -> None:
        self.steps = 0

    def step(self, *_: object) -> None:
        """Count one step. The arguments are those of a forward hook, and unused."""
        self.steps += 1

    @contextmanager
    def layers(self, layers: Iterable[nn.Module]) -> Iterator[None]:
        """Count each of these layers as a step when it is done."""
        hooks = [layer.register_forward_hook(self.step) for layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
