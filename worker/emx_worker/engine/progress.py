"""How far the engine has got, for a heartbeat that watches it from another thread."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


class Progress:
    """Counts steps: one forward, or one layer where many tokens go through it, which on a CPU may take long.

    Attributes:
        steps: so far.
    """

    def __init__(self) -> None:
        self.steps = 0

    def step(self, *_: object) -> None:
        self.steps += 1

    @contextmanager
    def layers(self, layers: Iterable[nn.Module]) -> Iterator[None]:
        """Count each of these as it is done."""
        hooks = [layer.register_forward_hook(self.step) for layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
