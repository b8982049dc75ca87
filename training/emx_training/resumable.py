"""Files from which an interrupted run resumes: its state and its learning curve."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def save_state(state: Mapping[str, Any], file: Path) -> None:
    """Write a run's state. The file is replaced as a whole: a crash leaves the state before it."""
    part = file.with_name(f"{file.name}.part")
    torch.save(dict(state), part)
    part.replace(file)


def load_state(file: Path) -> dict[str, Any] | None:
    """Return the state that ``save_state`` wrote, on the CPU, or None if there is no such file."""
    if not file.exists():
        return None
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state


@torch.no_grad()
def restore_weights(parameters: Iterable[Tensor], saved: Iterable[Tensor]) -> None:
    """Copy saved weights into parameters, in order."""
    for parameter, weight in zip(parameters, saved, strict=True):
        parameter.copy_(weight)


def write_curve(curve: Sequence[Mapping[str, float]], file: Path) -> None:
    """Write a learning curve as a JSON list."""
    file.write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
