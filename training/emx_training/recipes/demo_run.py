"""One run of the demo model's recipe: where it reads and writes, and how much."""

from dataclasses import dataclass, field
from pathlib import Path

from emx_training.phantoms import SiteName, training_seeds
from emx_training.pretrain.phantom_cache import CachedPhantoms, cached_phantoms
from emx_training.pretrain.pretraining import Stage
from emx_training.recipes.demo_schedule import WATCHED_BLOCK, DemoSchedule


@dataclass(frozen=True)
class DemoRun:
    """The folders, the seed and the schedule of a run, and the phantoms in its cache.

    Attributes:
        output: folder of the checkpoint.
        work: folder of states, learning curves and results.
        cache: folder of rendered phantoms.
        radiographs: folder of real radiographs that the model must decline; None to leave them out.
        seed: of weights, phantoms and order.
        schedule: how long it is trained, and on how much.
    """

    output: Path
    work: Path
    cache: Path
    radiographs: Path | None = None
    seed: int = 0
    schedule: DemoSchedule = field(default_factory=DemoSchedule)

    @property
    def adapter(self) -> Path:
        """Return the folder of the shipped adapter."""
        return self.output / "adapter"

    @property
    def collection(self) -> Path:
        """Return the folder of the images and tables that both phases read."""
        return self.work / "collection"

    def stage(self, name: str) -> Stage:
        """Return a stage of the pre-training by its name."""
        return next(stage for stage in self.schedule.pretraining if stage.name == name)

    def seen(self) -> CachedPhantoms:
        """Return the phantoms that all stages before *fresh* learn from."""
        return self.phantoms(self.schedule.phantoms, self.seed * 10)

    def watched(self, site: SiteName = "alpha") -> CachedPhantoms:
        """Return the phantoms of the learning curves, which aren't trained on."""
        return self.phantoms(self.schedule.watched, WATCHED_BLOCK, site)

    def phantoms(self, count: int, block: int, site: SiteName = "alpha") -> CachedPhantoms:
        """Return the first phantoms of a block of training seeds."""
        return cached_phantoms(training_seeds(count, block), self.cache, site)
