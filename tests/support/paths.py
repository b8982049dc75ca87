"""Folders that tests read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The clone."""

RADIOGRAPHS = ROOT.parent / "shared" / "data" / "cxr"
"""Real radiographs, which are kept beside the clone; tests of them are skipped where the folder is absent."""

FIELD_FILES = ROOT / "tests" / "data" / "field"
"""Small image files as devices, exports and data sets make them; see its README."""
