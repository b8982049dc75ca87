"""``emx model``: what a model needs of this machine, how to download it, and how to merge its adapter."""

import json as jsonlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from emx_shared.root_error import ExplainMyXrayError
from emx_shared.settings import settings
from explainmyxray.cli.terminal import console, errors, refused

if TYPE_CHECKING:
    from emx_worker.model.footprint import Footprint

model = typer.Typer(
    no_args_is_help=True,
    help="Check what a model needs of this machine, download it, and merge its adapter into it.",
)

MEDGEMMA = "google/medgemma-4b-it"
GATED = (
    "MedGemma is free to use under the Health AI Developer Foundations terms, which have to be accepted once:\n"
    "  1. Sign in to huggingface.co and accept them on https://huggingface.co/{name}\n"
    "  2. Make a token with read access under Settings, Access Tokens, and set it here: HF_TOKEN=hf_… , or "
    "`hf auth login`\n"
    "If this machine has no network: run `emx model pull` on another, copy the folder, and set EMX_MODEL to it."
)


class HubUnavailable(ExplainMyXrayError, RuntimeError):
    """The Hugging Face hub, or the model on it, can't be reached; the text says what to do."""


@model.command()
def check(
    name: Annotated[
        str, typer.Argument(help=f"Hub id or checkpoint directory; default: EMX_MODEL, or else {MEDGEMMA}")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON")] = False,
) -> None:
    """Check whether this machine can run a model, and what it would download. The exit code is 1 if it can't."""
    name = name or _chosen()
    try:
        with errors.status("Checking"):
            found = examine(name)
    except (HubUnavailable, RuntimeError) as error:
        raise refused(error) from None
    if json:
        print(jsonlib.dumps(found, indent=2))
    else:
        table = Table("", "GB", title=f"{name}: {found['parameters'] / 1e9:.2f} billion parameters")
        table.add_row("to download", f"{found['to_download'] / 1e9:.1f}")
        table.add_row("disk space free for it", f"{found['disk_free'] / 1e9:.1f}")
        table.add_row("memory, int4 on the CPU", f"{found['memory']['int4'] / 1e9:.1f}")
        table.add_row("memory, NF4 on CUDA", f"{found['memory']['nf4'] / 1e9:.1f}")
        table.add_row("memory, bf16 on CUDA", f"{found['memory']['bf16'] / 1e9:.1f}")
        table.add_row("memory free", f"{found['memory_free'] / 1e9:.1f}")
        if found["cuda_free"]:
            table.add_row("CUDA memory free", f"{found['cuda_free'] / 1e9:.1f}")
        console.print(table)
        for reason in found["obstacles"]:
            console.print(f"[red]{reason}[/]")
        if not found["obstacles"]:
            console.print(
                f"[green]This machine can run it[/], on {found['runs_on']}. Then: EMX_MODEL={name} ./run.sh"
            )
    if found["obstacles"]:
        raise typer.Exit(1)


@model.command()
def pull(
    name: Annotated[str, typer.Argument(help=f"Hub id; default: EMX_MODEL, or else {MEDGEMMA}")] = "",
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag; default: the newest")] = None,
) -> None:
    """Download a model into the shared Hugging Face cache. Run it again to resume an interrupted download."""
    from huggingface_hub import snapshot_download

    from emx_worker.model.checkpoint import HUB_FILES

    name = name or _chosen()
    if Path(name).is_dir():
        raise refused(f"{name} is a directory on this machine: there is nothing to download. Give a hub id.")
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=HUB_FILES))
    except Exception as error:  # the hub client raises its own, httpx's and the system's errors
        raise refused(_explained(name, error)) from None
    console.print(f"{name} at commit {folder.name} is stored in {folder}")
    console.print(f"Use it: EMX_MODEL={name} ./run.sh   (EMX_ADAPTER names an adapter's directory)")


@model.command()
def merge(
    output: Annotated[Path, typer.Argument(help="Folder of the merged checkpoint, new or empty")],
    name: Annotated[
        str,
        typer.Option("--model", help=f"Hub id or checkpoint directory; default: EMX_MODEL, or else {MEDGEMMA}"),
    ] = "",
    adapter: Annotated[
        Path | None, typer.Option(help="Adapter's directory; default: EMX_ADAPTER, or else the model's own")
    ] = None,
) -> None:
    """Write a model in bf16 with its adapter merged, as vLLM and the makers of GPTQ or AWQ weights take it."""
    from emx_worker.model.merged_checkpoint import write_merged_checkpoint

    chosen = settings().adapter
    try:
        with errors.status("Merging"):
            write_merged_checkpoint(name or _chosen(), adapter or (Path(chosen) if chosen else None), output)
    except RuntimeError as error:
        raise refused(error) from None
    size = sum(file.stat().st_size for file in output.iterdir())
    console.print(f"{output} has the merged model, {size / 1e9:.2f} GB. Use it: EMX_MODEL={output} ./run.sh")


def _chosen() -> str:
    """Return the model that EMX_MODEL names, else MedGemma: the demo model, which runs then, is here already."""
    chosen = settings()
    return chosen.model if "model" in chosen.model_fields_set else MEDGEMMA


def examine(name: str) -> dict[str, Any]:
    """Return what ``check`` prints, in bytes.

    Raises:
        HubUnavailable: The hub, or the model on it, can't be reached.
        ModelError: The model's configuration can't be used.
    """
    import psutil
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from emx_worker.model.footprint import footprint

    folder, missing = _config_folder(name)
    from emx_worker.model.checkpoint import read_config

    needed = footprint(read_config(folder))
    to_download = needed.stored if missing else 0
    cache = Path(HF_HUB_CACHE)
    folder_there = next(parent for parent in (cache, *cache.parents) if parent.exists())
    disk, memory = shutil.disk_usage(folder_there).free, psutil.virtual_memory().available
    cuda = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
    return {
        "model": name,
        "parameters": needed.parameters,
        "to_download": to_download,
        "disk_free": disk,
        "memory": {"int4": needed.int4, "nf4": needed.nf4, "bf16": needed.bf16, "fp32": needed.full},
        "memory_free": memory,
        "cuda_free": cuda,
        "cores": os.cpu_count(),
        "runs_on": _runs_on(needed, cuda),
        "obstacles": _obstacles(needed, to_download, disk, memory, cuda),
    }


def _runs_on(needed: "Footprint", cuda: int) -> str:
    """Return where a model would run by default, and in what weights."""
    if cuda < needed.nf4:
        return "the CPU, in int4"
    return "CUDA, in bf16" if needed.prefers_bf16(cuda) else "CUDA, in NF4"


def _obstacles(needed: "Footprint", to_download: int, disk: int, memory: int, cuda: int) -> list[str]:
    found = []
    if disk < to_download * 1.05:
        found.append(
            f"The disk is too full: free {(to_download * 1.05 - disk) / 1e9:.1f} GB more, or set HF_HOME to a "
            "folder on another disk."
        )
    if memory < needed.int4 and cuda < needed.nf4:
        found.append(
            f"Memory is too small: int4 on the CPU needs {needed.int4 / 1e9:.1f} GB, and {memory / 1e9:.1f} GB "
            f"are free. Close other programs, or use a GPU with {needed.nf4 / 1e9:.1f} GB."
        )
    return found


def _config_folder(name: str) -> tuple[Path, bool]:
    """Return a folder with the model's config.json, and whether its weights still have to be downloaded."""
    if Path(name).is_dir():
        return Path(name), False
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    try:
        here = isinstance(try_to_load_from_cache(name, "model.safetensors.index.json"), str)
        return Path(hf_hub_download(name, "config.json")).parent, not here
    except Exception as error:  # as in pull
        raise _explained(name, error) from error


def _explained(name: str, error: Exception) -> HubUnavailable:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return HubUnavailable(
            f"{name} is gated, and this machine has no access to it.\n" + GATED.format(name=name)
        )
    if isinstance(error, RepositoryNotFoundError):
        return HubUnavailable(
            f"The hub has no model {name}, or your token has no access to it. Check the name and HF_TOKEN."
        )
    text = (
        f"There is no directory {name}, and the hub can't be reached ({type(error).__name__}). Check the network."
    )
    return HubUnavailable(text + ("\n" + GATED.format(name=name) if name == MEDGEMMA else ""))
