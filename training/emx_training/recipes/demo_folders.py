"""Where the demo model's recipe reads and writes."""

from dataclasses import dataclass
from pathlib import Path

from emx_training.phantoms import SiteName, training_seeds
from emx_training.pretrain.phantom_cache import CachedPhantoms, cached_phantoms
from emx_training.recipes.demo_schedule import PHANTOMS, WATCHED, WATCHED_BLOCK


@dataclass(frozen=True)
class DemoFolders:
    """The recipe's folders, and the phantoms in its cache.

    Attributes:
        output: the checkpoint.
        work: states, learning curves and results of the run.
        cache: rendered phantoms.
        radiographs: real radiographs that the model must decline; None to leave them out.
    """

    output: Path
    work: Path
    cache: Path
    radiographs: Path | None

    @property
    def adapter(self) -> Path:
        """Return the folder of the shipped adapter."""
        return self.output / "adapter"

    @property
    def collection(self) -> Path:
        """Return the folder of the images and tables that both phases read."""
        return self.work / "collection"

    def seen(self, seed: int) -> CachedPhantoms:
        """Return the phantoms that all stages before *fresh* learn from."""
        return self.phantoms(PHANTOMS, seed * 10)

    def watched(self, site: SiteName = "alpha") -> CachedPhantoms:
        """Return the phantoms of the learning curves, which aren't trained on."""
        return self.phantoms(WATCHED, WATCHED_BLOCK, site)

    def phantoms(self, count: int, block: int, site: SiteName = "alpha") -> CachedPhantoms:
        """Return the first phantoms of a block of training seeds."""
        return cached_phantoms(training_seeds(count, block), self.cache, site)
