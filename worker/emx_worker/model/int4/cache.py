"""Caches int4 weights on disk, so that only the first start has to quantise.

The cache is in ``$XDG_CACHE_HOME/explainmyxray`` (``~/.cache/explainmyxray``), which may be deleted at any time.
"""

import copy
import hashlib
import logging
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from emx_worker.model.architectures import Config, Model, architecture_of
from emx_worker.model.int4.group_fitting import GROUP
from emx_worker.model.int4.quantisation import BF16_UNITS, Int4Linear
from emx_worker.model.int4.streaming import METHOD

log = logging.getLogger("emx.worker")

_FORMAT = 4
"""Number of what a file holds and of how weights are quantised: another number, and they are quantised again."""

_WORTHWHILE = 2**28
"""Bytes of weights above which loading them from the cache is faster than quantising."""

_EMBEDDING, _HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"


def cache_file(folder: Path, adapter: Path | None) -> Path | None:
    """Return the cache file for the int4 weights of a checkpoint with an adapter.

    Its name is a hash of what the weights depend on: the files' names, sizes, times and first 64 KB (a safetensors
    file's header, and more), and how this CPU and torch pack. Reading gigabytes to hash them would cost as much
    time as the cache saves.

    Returns:
        The file, whether or not it exists; None if the checkpoint is too small to be worth it.
    """
    files = [file for part in (folder, adapter) if part for file in sorted(part.glob("*.safetensors"))]
    if sum(file.stat().st_size for file in files) < _WORTHWHILE:
        return None
    kind = f"{_FORMAT} {GROUP} {torch.__version__} {torch.backends.cpu.get_cpu_capability()} {BF16_UNITS}"
    digest = hashlib.sha256(kind.encode())
    for file in files:
        status = file.stat()
        digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(2**16))
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "explainmyxray" / "int4" / f"{digest.hexdigest()[:32]}.safetensors"


def load(file: Path, config: Config) -> Model | None:
    """Load a model from a cache file; its weights stay on disk until they are used. None if it can't be read."""
    if not file.is_file():
        return None
    try:
        tensors = load_file(file)
        config = copy.deepcopy(config)
        config.get_text_config().vocab_size = tensors[_EMBEDDING].shape[0]  # an adapter may have added tokens
        if _HEAD in tensors:  # or have changed the embedding and not the head
            config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False
        config.quantization_config = {"quant_method": METHOD}
        model, info = architecture_of(config).model.from_pretrained(
            None, config=config, state_dict=tensors, dtype=torch.float32, output_loading_info=True
        )
        if lacking := info["missing_keys"]:
            raise ValueError(f"{len(lacking)} tensors are missing")
        if unknown := info["unexpected_keys"]:
            raise ValueError(f"{len(unknown)} tensors have no place")
    except Exception as error:  # whatever safetensors and transformers raise for a damaged file
        log.warning("the cached int4 weights in %s can't be used (%s): quantising again", file.name, error)
        return None
    made: Model = model
    return made


def save(model: Model, file: Path) -> bool:
    """Write a model's int4 weights to a cache file, whole or not at all. Log and return False if that fails."""
    if any(isinstance(layer, Int4Linear) and layer.bias is not None for layer in model.modules()):
        log.info("int4 weights with biases of an adapter are not cached")
        return False
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if tensors[_HEAD].data_ptr() == tensors[_EMBEDDING].data_ptr():
        del tensors[_HEAD]
    size = sum(tensor.numel() * tensor.itemsize for tensor in tensors.values())
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(file.parent).free < 1.2 * size:
            raise OSError("the disk is nearly full")
        save_file(tensors, part, {"format": "pt"})
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        log.warning("the int4 weights can't be cached for the next start: %s", error)
        return False
    log.info("cached %.1f GB of int4 weights for the next start", size / 1e9)
    return True
