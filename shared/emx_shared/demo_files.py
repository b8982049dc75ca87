"""Where the demo model is: inside the installed package, or in ``models/demo`` of a clone."""

from pathlib import Path

_PACKAGED = Path(__file__).resolve().parent / "demo_checkpoint"
_IN_CLONE = Path(__file__).resolve().parents[2] / "models" / "demo"

DEMO_MODEL = _PACKAGED if _PACKAGED.is_dir() else _IN_CLONE
"""Directory of the demo checkpoint, with its adapter, its guard and its card."""

DEMO_IMAGE = DEMO_MODEL / "sample.png"
"""A computed chest phantom that the model wasn't trained on."""
