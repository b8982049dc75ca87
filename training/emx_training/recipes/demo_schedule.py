"""How the demo model is trained: every number of the recipe."""

from emx_training.phantoms import SiteName
from emx_training.pretrain.pretraining import Stage

NAME = "explainmyxray-demo"

# Stages of pre-training, in order. Rates are peaks in Adam's scale; softness is in location bins.
VISION = Stage("vision", steps=985, rate=1.2e-3, dense=1.0)
CAPTIONS = Stage("captions", steps=650, rate=1.2e-3, dense=0.5, softness=(24.0, 6.0), decay=0.5)
REPORTS = Stage("reports", steps=330, rate=1.0e-3, dense=0.3, softness=(10.0, 6.0), decay=0.7)
DETAILS = Stage("details", steps=1_800, rate=1.2e-3, dense=1.0, rare=4.0, decay=0.15)
POLISH = Stage("polish", steps=1_000, rate=1.0e-3, dense=0.5, softness=(8.0, 4.0), decay=0.7)
FRESH = Stage("fresh", steps=900, rate=1.0e-3, dense=0.3, softness=(5.0, 3.0), decay=0.8, rare=3.0)
PRETRAINING = (VISION, CAPTIONS, REPORTS, DETAILS, POLISH, FRESH)

PHANTOMS = 50_000
"""Different phantoms for all stages before *fresh*, and as many others for *fresh*."""

WATCHED = 500
"""Phantoms of the learning curves, which aren't trained on."""

PHASE_PHANTOMS, PHASE_WATCHED = 2_400, 200
"""Phantoms that both phases learn from, and those of phase 1's validation table."""

GUARD_PHANTOMS = 4_000
"""Phantoms that the guard is fitted to."""

FRESH_BLOCK, PHASE_BLOCK, PHASE_WATCHED_BLOCK, WATCHED_BLOCK = 2, 1, 98, 99
"""Blocks of training seeds; the stages before *fresh* have block 0."""

WATCHED_SITES: tuple[SiteName, ...] = ("alpha", "beta")
"""Sites by which the guard's threshold is set; *gamma* must stay unseen."""

PHASE1 = ("--epochs", "1", "--lr", "3e-4", "--lora_r", "16", "--batch", "16")
PHASE2 = ("--epochs", "1", "--lr", "3e-4", "--batch", "16")
"""Options of the fine-tuning commands."""

HELD_OUT = 500
"""Phantoms of each column of the card."""

SAMPLE_SIZE = 1024
"""Pixels along each side of the sample image."""

SAMPLES_TRIED = 16
"""Held-out phantoms that are candidates for the sample image."""
