"""What is read of a checkpoint before its weights: where it lies, its manifest, its shape, its processor."""

import hashlib
import re
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import AutoConfig

from emx_shared.errors import ExplainMyXrayError
from emx_worker.model.architectures import Config, Processor, architecture_of

MANIFEST = "emx.json"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model"]


class ModelError(ExplainMyXrayError, RuntimeError):
    """The model can't be loaded or run; the text says what to do about it."""


class Base(BaseModel):
    """The checkpoint that an adapter belongs to, known by its weights wherever they lie.

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


class Manifest(BaseModel):
    """What a worker must know of a model beside its weights: the file ``emx.json``, in which all is optional.

    Attributes:
        base: in an adapter's directory, what it was trained on.
        name, revision: for the reports; by default the checkpoint's name and the digest of its weights.
        dialect: how the model writes boxes; by default what its tokenizer was made for.
        demo: whether it knows nothing but phantoms.
        prompt: the question it was trained on; by default the dialect's.
        max_new_tokens: budget of one report, its end-of-turn token included.
        takes_indication: whether it was trained to be told clinical context after the question.
        adapter: directory below the checkpoint's of the adapter that belongs to it, taken unless another is given.
    """

    model_config = ConfigDict(frozen=True)

    base: Base | None = None
    name: str | None = None
    revision: str | None = None
    dialect: str | None = None
    demo: bool = False
    prompt: str | None = None
    max_new_tokens: int = Field(512, gt=0)
    takes_indication: bool = False
    adapter: str | None = Field(None, pattern=r"^[\w-]+$")


def locate(checkpoint: Path | str, revision: str | None) -> Path:
    """The checkpoint's directory; a hub id is downloaded, or found in the local cache. Raises ModelError."""
    path = Path(checkpoint)
    if path.is_dir() or isinstance(checkpoint, Path) or not _HUB_ID.fullmatch(checkpoint):
        return directory(path)
    try:
        return Path(snapshot_download(checkpoint, revision=revision, allow_patterns=HUB_FILES))
    except Exception as error:  # the hub client raises its own, httpx's and the system's errors
        raise ModelError(
            f"{checkpoint} is neither a directory here nor could it be had from the hub "
            f"({type(error).__name__}): check the name, the network, and your access to the model."
        ) from error


def directory(path: Path) -> Path:
    """Raises ModelError if there is none."""
    if not path.is_dir():
        raise ModelError(f"There is no directory {path}: give a checkpoint's directory or a hub id.")
    return path.resolve()


def read_manifest(*folders: Path) -> Manifest:
    """What the manifests say; later folders overrule earlier ones. Raises ModelError."""
    merged: dict[str, Any] = {}
    for file in (folder / MANIFEST for folder in folders):
        if file.is_file():
            try:
                merged |= Manifest.model_validate_json(file.read_bytes()).model_dump(exclude_unset=True)
            except ValidationError as error:
                first = error.errors()[0]
                where = "".join(f"{part}: " for part in first["loc"])
                raise ModelError(f"{file} is no manifest ({where}{first['msg']}): correct it.") from None
    return Manifest.model_validate(merged)


def name_of(checkpoint: Path | str, folder: Path, manifest: Manifest) -> str:
    """What a checkpoint that was asked for as ``checkpoint`` is called: never a path of this machine."""
    return manifest.name or (folder.name if Path(checkpoint).is_dir() else str(checkpoint))


def base_of(checkpoint: Path | str, folder: Path) -> Base:
    """What an adapter that is trained on this checkpoint should say of it. Reads all weights."""
    name = name_of(checkpoint, folder, read_manifest(folder))
    return Base(name=name, commit=_commit(folder), sha256=_digest(folder))


def require_base(adapter: Path, checkpoint: Path | str, folder: Path) -> None:
    """Raises ModelError if an adapter says that it was trained on other weights than the checkpoint's."""
    wanted = read_manifest(adapter).base
    if wanted is None or (wanted.commit is not None and wanted.commit == _commit(folder)):
        return
    found = base_of(checkpoint, folder)
    if found.sha256 != wanted.sha256:
        raise ModelError(
            f"The adapter in {adapter} was trained on {wanted}, and this is {found}: "
            "give the checkpoint it was trained on."
        )


def read_config(folder: Path) -> Config:
    """Raises ModelError for any architecture but Gemma 3 with images and PaliGemma."""
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
    """Raises ModelError."""
    architecture = architecture_of(config)
    try:
        # The backend is named, since transformers takes torchvision's wherever that is installed, and the two
        # resize an image to slightly different pixels.
        processor = architecture.processor.from_pretrained(folder, backend="pil")
        architecture.prompt(processor, "")  # it may lack its chat template
        return processor
    except Exception as error:  # as above
        raise ModelError(
            f"The processor in {folder} can't be loaded ({error}): restore its tokenizer and processor files."
        ) from error


def revision_of(folder: Path) -> str:
    """The commit of a hub snapshot, else the SHA-256 of the weights."""
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
