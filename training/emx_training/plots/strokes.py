"""Line styles of the plots."""

from collections.abc import Sequence
from typing import Literal

LineStyle = Literal["-"] | tuple[float, Sequence[float]]
"""Solid, or (offset, lengths of dashes and gaps), in points."""
