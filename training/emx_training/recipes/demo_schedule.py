"""How the demo model is trained: every number of the recipe."""

from dataclasses import dataclass, replace

from emx_training.phantoms import SiteName
from emx_training.pretrain.pretraining import Stage

NAME = "explainmyxray-demo"

FRESH_BLOCK, PHASE_BLOCK, PHASE_WATCHED_BLOCK, WATCHED_BLOCK = 2, 1, 98, 99
"""Blocks of training seeds; the stages before *fresh* have block 0."""

WATCHED_SITES: tuple[SiteName, ...] = ("alpha", "beta")
"""Sites by which the guard's threshold is set; *gamma* must stay unseen."""

PHASE1 = ("--epochs", "1", "--lr", "3e-4", "--lora_r", "16", "--batch", "16")
PHASE2 = ("--epochs", "1", "--lr", "3e-4", "--batch", "16")
"""Options of the fine-tuning commands."""

SAMPLE_SIZE = 1024
"""Pixels along each side of the sample image."""

SAMPLES_TRIED = 16
"""Held-out phantoms that are candidates for the sample image."""


@dataclass(frozen=True)
class DemoSchedule:
    """How long the demo model is trained, and on how much.

    Attributes:
        pretraining: the stages, in order. Rates are peaks in Adam's scale; softness is in location bins.
        phantoms: different ones for all stages before *fresh*, and as many others for *fresh*.
        watched: those of the learning curves, which aren't trained on.
        phase: those that both phases learn from.
        phase_watched: those of phase 1's validation table.
        guard: those that the guard is fitted to.
        held_out: those of each column of the card.
    """

    pretraining: tuple[Stage, ...] = (
        Stage("vision", steps=985, rate=1.2e-3, dense=1.0),
        Stage("captions", steps=650, rate=1.2e-3, dense=0.5, softness=(24.0, 6.0), decay=0.5),
        Stage("reports", steps=330, rate=1.0e-3, dense=0.3, softness=(10.0, 6.0), decay=0.7),
        Stage("details", steps=1_800, rate=1.2e-3, dense=1.0, rare=4.0, decay=0.15),
        Stage("polish", steps=1_000, rate=1.0e-3, dense=0.5, softness=(8.0, 4.0), decay=0.7),
        Stage("fresh", steps=900, rate=1.0e-3, dense=0.3, softness=(5.0, 3.0), decay=0.8, rare=3.0),
    )
    phantoms: int = 50_000
    watched: int = 500
    phase: int = 2_400
    phase_watched: int = 200
    guard: int = 4_000
    held_out: int = 500

    def rehearsal(self) -> "DemoSchedule":
        """Return the same steps at the smallest size: each runs, and none learns anything."""
        return DemoSchedule(
            pretraining=tuple(replace(stage, steps=2) for stage in self.pretraining),
            phantoms=64,
            watched=32,
            phase=32,
            phase_watched=16,
            guard=300,
            held_out=16,
        )
