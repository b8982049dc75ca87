"""A checkpoint's tensors, each read from its file when it is asked for, and not kept.

safetensors itself maps files into memory, where every page that was read counts as the process's own until the
system needs it: for MedGemma 8.6 GB.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Stored:
    """A tensor on disk; ``stored[...]`` reads it."""

    file: Path
    start: int
    size: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __getitem__(self, _: EllipsisType) -> Tensor:
        values = np.fromfile(self.file, np.uint8, self.size, offset=self.start)
        return torch.from_numpy(values).view(self.dtype).view(self.shape)


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """All tensors of a checkpoint's safetensors files, by name.

    Raises OSError, safetensors.SafetensorError or ValueError for files that are missing or damaged.
    """
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    files = (
        sorted(set(json.loads(index.read_text())["weight_map"].values()))
        if index.is_file()
        else [SAFE_WEIGHTS_NAME]
    )
    return {name: tensor for file in files for name, tensor in _tensors(folder / file).items()}


def _tensors(file: Path) -> dict[str, Stored]:
    """By the format's description (github.com/huggingface/safetensors): length of header, header, tensors."""
    with safe_open(file, framework="pt"):
        pass  # it checks header and size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    strange = {entry["dtype"] for entry in header.values()} - set(_DTYPES)
    if strange:
        raise ValueError(f"{file.name} holds numbers of type {sorted(strange)}, and weights are floating-point")
    return {
        name: Stored(
            file,
            8 + length + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
            tuple(entry["shape"]),
            _DTYPES[entry["dtype"]],
        )
        for name, entry in header.items()
    }
