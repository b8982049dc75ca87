"""Reads what precedes the weights of a checkpoint: its place, its model spec, its shape, its processor."""

import hashlib
import re
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import AutoConfig

from emx_shared.root_error import ExplainMyXrayError
from emx_worker.model.architectures import Config, Model, Processor, architecture_of

MODEL_SPEC_FILE = "emx.json"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model"]


class ModelError(ExplainMyXrayError, RuntimeError):
    """The model can't be loaded or run. The text says what to do about it."""


class BaseCheckpoint(BaseModel):
    """The checkpoint that an adapter belongs to, identified by its weights wherever they are stored.

    Attributes:
        name: hub id, or what the checkpoint calls itself.
        commit: on the hub; None for any other checkpoint.
        sha256: of the weights.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    commit: str | None = None
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} ({f'commit {self.commit}' if self.commit else f'weights {self.sha256[:12]}'})"


class ModelSpec(BaseModel):
    """What a worker must know of a model beside its weights: the file ``emx.json``, where all is optional.

    Attributes:
        base: in an adapter's directory, the checkpoint that it was trained on.
        name: for reports; by default the checkpoint's name.
        revision: for reports; by default the digest of the weights.
        dialect: how the model writes boxes (``BoxDecoding.name``); by default what its tokenizer was made for.
        demo: whether the model knows nothing but phantoms.
        prompt: the question that it was trained on; by default the box decoding's.
        max_new_tokens: budget of one report, its end-of-turn token included.
        takes_indication: whether it was trained to get clinical context after the question.
        adapter: directory below the checkpoint's with its adapter, which is used unless another one is given.
    """

    model_config = ConfigDict(frozen=True)

    base: BaseCheckpoint | None = None
    name: str | None = None
    revision: str | None = None
    dialect: str | None = None
    demo: bool = False
    prompt: str | None = None
    max_new_tokens: int = Field(512, gt=0)
    takes_indication: bool = False
    adapter: str | None = Field(None, pattern=r"^[\w-]+$")


def locate(checkpoint: Path | str, revision: str | None) -> Path:
    """Find a checkpoint's directory. A hub id is downloaded, or found in the local cache.

    Args:
        checkpoint: directory or hub id.
        revision: commit, branch or tag on the hub; None for the default branch.

    Raises:
        ModelError: if there is no such directory, or the hub is unavailable.
    """
    path = Path(checkpoint)
    if path.is_dir() or isinstance(checkpoint, Path) or not _HUB_ID.fullmatch(checkpoint):
        return require_directory(path)
    try:
        return Path(snapshot_download(checkpoint, revision=revision, allow_patterns=HUB_FILES))
    except Exception as error:  # the hub client raises its own, httpx's and the system's errors
        raise ModelError(
            f"{checkpoint} is no directory here, and can't be downloaded from the hub ({type(error).__name__}): "
            "check the name, the network, and your access to the model."
        ) from error


def require_directory(path: Path) -> Path:
    """Return the absolute path of a directory. Raises ModelError if it doesn't exist."""
    if not path.is_dir():
        raise ModelError(f"There is no directory {path}: give a checkpoint's directory or a hub id.")
    return path.resolve()


def read_model_spec(*folders: Path) -> ModelSpec:
    """Read the model specs of some directories; what a later one says overrules earlier ones.

    Raises:
        ModelError: if an ``emx.json`` is invalid.
    """
    merged: dict[str, Any] = {}
    for file in (folder / MODEL_SPEC_FILE for folder in folders):
        if file.is_file():
            try:
                merged |= ModelSpec.model_validate_json(file.read_bytes()).model_dump(exclude_unset=True)
            except ValidationError as error:
                first = error.errors()[0]
                where = "".join(f"{part}: " for part in first["loc"])
                raise ModelError(f"{file} is invalid ({where}{first['msg']}): correct it.") from None
    return ModelSpec.model_validate(merged)


def write_model_spec(spec: ModelSpec, folder: Path) -> None:
    """Write a checkpoint's ``emx.json``."""
    text = spec.model_dump_json(indent=2, exclude_none=True)
    (folder / MODEL_SPEC_FILE).write_text(f"{text}\n", encoding="utf-8")


def write_checkpoint(model: Model, processor: Processor, spec: ModelSpec, folder: Path) -> None:
    """Write a checkpoint that transformers can load, with its ``emx.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors makes files that only the owner can read
    write_model_spec(spec, folder)


def name_of(checkpoint: Path | str, folder: Path, spec: ModelSpec) -> str:
    """Return what a checkpoint is called in reports; never a path of this machine.

    Args:
        checkpoint: directory or hub id, as it was requested.
        folder: where it was found.
        spec: of the checkpoint.
    """
    return spec.name or (folder.name if Path(checkpoint).is_dir() else str(checkpoint))


def describe_base(checkpoint: Path | str, folder: Path) -> BaseCheckpoint:
    """Describe a checkpoint for the adapter that is trained on it. Reads all weights."""
    name = name_of(checkpoint, folder, read_model_spec(folder))
    return BaseCheckpoint(name=name, commit=_commit(folder), sha256=_digest(folder))


def require_base(adapter: Path, checkpoint: Path | str, folder: Path) -> None:
    """Check that an adapter was trained on a checkpoint's weights, if it says what it was trained on.

    Raises:
        ModelError: if it was trained on other weights.
    """
    wanted = read_model_spec(adapter).base
    if wanted is None or (wanted.commit is not None and wanted.commit == _commit(folder)):
        return
    found = describe_base(checkpoint, folder)
    if found.sha256 != wanted.sha256:
        raise ModelError(
            f"The adapter in {adapter} was trained on {wanted}, and this is {found}: "
            "give the checkpoint it was trained on."
        )


def read_config(folder: Path) -> Config:
    """Read a checkpoint's configuration.

    Raises:
        ModelError: if it is damaged, or of any architecture but Gemma 3 with images and PaliGemma.
    """
    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, … for a damaged file
        raise ModelError(
            f"{folder} has no config.json that transformers can read ({error}): fetch the checkpoint again."
        ) from error
    try:
        architecture_of(config)
    except KeyError:
        raise ModelError(
            f"{folder} holds a {config.model_type} model: this worker runs Gemma 3 with images, such as "
            "google/medgemma-4b-it, or PaliGemma."
        ) from None
    return config


def read_processor(folder: Path, config: Config) -> Processor:
    """Read a checkpoint's tokenizer and image processor. Raises ModelError if they can't be loaded."""
    architecture = architecture_of(config)
    try:
        # The backend is named because transformers uses torchvision's wherever that is installed, and the two
        # resize an image to slightly different pixels.
        processor = architecture.processor.from_pretrained(folder, backend="pil")
        if processor.chat_template is None:  # older checkpoints have it in tokenizer_config.json
            processor.chat_template = processor.tokenizer.chat_template
        architecture.prompt(processor, "")  # it may be missing from both
        return processor
    except Exception as error:  # as above
        raise ModelError(
            f"The processor in {folder} can't be loaded ({error}): restore its tokenizer and processor files."
        ) from error


def revision_of(folder: Path) -> str:
    """Return the commit of a hub snapshot, else the SHA-256 of the weights."""
    return _commit(folder) or _digest(folder)


def _commit(folder: Path) -> str | None:
    return folder.name if folder.parent.name == "snapshots" else None


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*model*.safetensors")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
