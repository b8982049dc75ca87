"""Reads a checkpoint's tensors one at a time, each when it is needed, without keeping it.

safetensors itself maps files into memory, where every page that was read counts as the process's own until the
system needs it: 8.6 GB for MedGemma.
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
class StoredTensor:
    """A tensor on disk; ``stored[...]`` reads it.

    Attributes:
        file: that holds it.
        start: offset of its first byte in the file.
        size: in bytes.
        shape: of the tensor.
        dtype: of the tensor.
    """

    file: Path
    start: int
    size: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __getitem__(self, _: EllipsisType) -> Tensor:
        values = np.fromfile(self.file, np.uint8, self.size, offset=self.start)
        return torch.from_numpy(values).view(self.dtype).view(self.shape)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Find all tensors of a checkpoint's safetensors files, by name.

    Raises:
        OSError, SafetensorError, ValueError: if a file is missing or damaged.
    """
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    files = (
        sorted(set(json.loads(index.read_text())["weight_map"].values()))
        if index.is_file()
        else [SAFE_WEIGHTS_NAME]
    )
    return {name: tensor for file in files for name, tensor in _tensors(folder / file).items()}


def _tensors(file: Path) -> dict[str, StoredTensor]:
    """Find a file's tensors. Format (github.com/huggingface/safetensors): header length, header, tensors."""
    with safe_open(file, framework="pt"):
        pass  # opening checks header and size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    strange = {entry["dtype"] for entry in header.values()} - set(_DTYPES)
    if strange:
        raise ValueError(f"{file.name} has tensors of type {sorted(strange)}, but weights must be floating-point")
    return {
        name: StoredTensor(
            file,
            8 + length + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
            tuple(entry["shape"]),
            _DTYPES[entry["dtype"]],
        )
        for name, entry in header.items()
    }
